"""The event store reads the events of orders from the outbox and from the history, each once and by index."""

import pytest
from django.db import connection

from orders.history import RECORDED_EVENTS

pytestmark = pytest.mark.django_db

FILL = """
    INSERT INTO {table} (id, event_id, event_type, topic, value, headers, stream, sequence, created_at, recorded_at,
                         published_at, published_partition, published_offset {more})
    SELECT n, gen_random_uuid(), 'ORDER_CREATED', 'order-events', '{{}}', '', 'order-' || n, 1, now(), now(),
           now(), 0, n {values}
    FROM generate_series({first}, {last}) AS n
    """


@pytest.mark.parametrize(
    ("condition", "column"),
    [
        ("WHERE id BETWEEN 500 AND 600", "id >= 500"),
        ("WHERE event_id = '5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55'", "event_id ="),
        ("JOIN unnest(array_fill(gen_random_uuid(), ARRAY[9])) AS wanted ON event_id = wanted", "event_id ="),
        ("WHERE stream = 'order-5'", "stream)::text ="),
        ("JOIN generate_series(1, 9) AS n ON stream = 'order-' || n", "stream)::text ="),
    ],
)
def test_conditions_use_the_indexes_of_both_tables(condition: str, column: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL.format(table="orders_orderhistory", more="", values="", first=1, last=3000))
        of_outbox = {"table": "events_outboxevent", "more": ", parked_reason", "values": ", ''"}
        cursor.execute(FILL.format(**of_outbox, first=3001, last=6000))
        cursor.execute("ANALYZE orders_orderhistory, events_outboxevent")
        cursor.execute(f"EXPLAIN SELECT * FROM ({RECORDED_EVENTS}) AS recorded {condition}")
        plan = [line for (line,) in cursor]
    assert len([line for line in plan if "Index Cond" in line and column in line]) == 2, "\n".join(plan)
    assert not [line for line in plan if "Seq Scan" in line]
