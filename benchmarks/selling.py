"""Compare one consumer of the group `sales` with a bare loop, and several consumers with one.

Also compare reading the sales of one day from a large table and from a small one.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from benchmarks import database
from benchmarks.comparison import Pair
from benchmarks.consuming import (
    BATCH_EVENTS,
    EMBEDDED_BACKLOG,
    MIDDLE_BACKLOG,
    SHARED_BACKLOG,
    Backlog,
    next_group,
)
from benchmarks.listing import Shop
from benchmarks.servers import Servers, running
from testkit.processes import ProductProcess
from testkit.waiting import wait_until

CONSUMERS = {"sales-consumers-2": 2, "sales-consumers-3": 3}
ROUNDS = 5
ROUNDS_OF_SEVERAL = 3

LAST_DAY = datetime(2025, 1, 30, tzinfo=UTC)
TEN_YEARS_DAYS = 3_652
DAY_OF_MINUTES = "/api/sales?interval=minute&from=2025-01-30T00:00:00Z&to=2025-01-31T00:00:00Z"

RECORD = """
    INSERT INTO events_outboxevent (event_id, event_type, topic, value, headers, stream, sequence, created_at,
        published_at, published_partition, published_offset, parked_reason)
    SELECT (text::json ->> 'eventId')::uuid, text::json ->> 'eventType', 'bench', convert_to(text, 'UTF8'), '\\x90',
        'order-' || (text::json ->> 'orderId'), 1, now(), now(), 0, 0, ''
    FROM json_array_elements_text(%(values)s) AS text
    """
FILL = """
    INSERT INTO sales_salesbucket (generation, minute, event_type, partition, count, amount)
    SELECT 0, minute, 'ORDER_CREATED', 0, 1, 100
    FROM generate_series(%(first)s, %(last)s, interval '1 minute') AS minute;

    INSERT INTO sales_salesbucket (generation, minute, event_type, partition, count, amount)
    SELECT 0, minute, event_type, partition, 1, 100
    FROM generate_series(%(day)s, %(last)s, interval '1 minute') AS minute,
        unnest(ARRAY['ORDER_CREATED', 'ORDER_PAID', 'ORDER_CANCELLED']) AS event_type,
        generate_series(1, 3) AS partition;
    """


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    several = {name: count for name, count in CONSUMERS.items() if name in wanted}
    size = (SHARED_BACKLOG if several else MIDDLE_BACKLOG) if servers.is_apache else EMBEDDED_BACKLOG
    backlog = Backlog(servers, "bench-sales", size)
    _record(backlog)
    if "sales" in wanted:
        for _ in range(ROUNDS):
            yield "sales", Pair(_consume(servers, backlog), _consume(servers, backlog, is_bare=True))
    if several:
        for _ in range(ROUNDS_OF_SEVERAL):
            one = _consume(servers, backlog)
            for name, count in several.items():
                yield name, Pair(_consume(servers, backlog, consumers=count), one)


def measure_reading(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    """Measure how long the API takes to return the sales of one day by minute.

    In each round, ask for the same day from a table with ten years and from a table with that day alone. Yield the
    row's name and the two median durations in milliseconds. `wanted` is not used, because there is only one row.
    """
    urls = {days: servers.database(f"bench-sales-{days}") for days in (1, TEN_YEARS_DAYS)}
    with (
        running(servers.web(DATABASE_URL=urls[1])) as day_web,
        running(servers.web(DATABASE_URL=urls[TEN_YEARS_DAYS])) as years_web,
    ):
        day, years = Shop(day_web.url), Shop(years_web.url)
        for days, url in urls.items():
            last = LAST_DAY + timedelta(days=1, minutes=-1)
            database.execute(FILL, url, day=LAST_DAY, first=LAST_DAY - timedelta(days=days - 1), last=last)
            database.execute("UPDATE auth_user SET is_staff = true, is_superuser = true", url)
            database.execute("VACUUM ANALYZE", url)
        for _ in range(ROUNDS):
            (ours, _), (beside, _) = years.measure(DAY_OF_MINUTES), day.measure(DAY_OF_MINUTES)
            yield "sales-api-growth", Pair(ours, beside)


def _record(backlog: Backlog) -> None:
    """Replace all rows of the outbox by the events of the backlog, as events of orders that are already published."""
    database.empty("events_outboxevent")
    for values in backlog.values():
        database.execute(RECORD, values=values)
    database.execute("VACUUM ANALYZE events_outboxevent")


def _consume(servers: Servers, backlog: Backlog, *, consumers: int = 1, is_bare: bool = False) -> float:
    """Let a new group work off the backlog, and return its events per second from the first batch to the last.

    With `is_bare`, `benchmarks/peers/bare_sales.py` consumes the backlog in place of the product's consumer.
    """
    database.empty("events_inboxentry", "sales_salesbucket", "sales_customersummary", "sales_foreignevent")
    group = next_group()

    def start() -> ProductProcess:
        if is_bare:
            return servers.start_peer("bare_sales", backlog.topic, group)
        return servers.start(
            *("django", "consume", group),
            DJANGO_SETTINGS_MODULE="benchmarks.peers.group_settings",
            OWN_TOPIC=backlog.topic,
            BENCH_GROUP=group,
            BENCH_SUBSCRIPTION="sales",
        )

    with ExitStack() as stack:
        for _ in range(consumers):
            stack.enter_context(running(start()))
        wait_until(lambda: _counted() >= backlog.size, timeout=300)
    assert _counted() == backlog.size
    assert database.value("SELECT count(*) FROM sales_foreignevent") == 0
    sql = "SELECT extract(epoch FROM max(handled_at) - min(handled_at)) FROM events_inboxentry"
    return (backlog.size - BATCH_EVENTS) / float(database.value(sql))


def _counted() -> int:
    return int(database.value("SELECT coalesce(sum(count), 0) FROM sales_salesbucket"))
