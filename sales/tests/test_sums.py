"""The group adds each event once, whatever arrives.

For our own events, the group adds the content in the outbox or the history, not the content that arrived.
"""

import json
from datetime import UTC, datetime
from decimal import Context, Decimal
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from events.models import OutboxEvent
from events.testing import deliver
from events.wire.timestamps import now
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, decode
from orders.history import move_to_history
from sales.models import CustomerSummary, ForeignEvent, Generations, SalesBucket
from sales.subscriptions import SALES
from sales.tests.shop import foreign, foreign_events, handle, place_orders, recorded_values, sums, sums_of_history

pytestmark = pytest.mark.django_db

MINUTE = datetime(2025, 1, 30, 10, 15, tzinfo=UTC)


def test_sums_equal_those_over_the_history() -> None:
    handle(place_orders(20))
    assert sums() == sums_of_history()
    assert ForeignEvent.objects.count() == 0


@pytest.mark.parametrize("seed", range(5))
def test_hostile_deliveries_change_no_sum(seed: int) -> None:
    """Events arrive repeatedly, in one batch or in several, reordered, and from other partitions."""
    random = Random(seed)
    values = place_orders(12)
    copies = [value for value in values for _ in range(random.randint(1, 3))]
    random.shuffle(copies)
    while copies:
        size = random.randint(1, 9)
        handle(copies[:size], partition=random.randrange(4))
        copies = copies[size:]
    assert sums() == sums_of_history()


def test_foreign_events_count_and_are_kept() -> None:
    events = foreign_events(50)
    handle(events)
    handle(events)
    assert sum(count for count, _ in sums().values()) == 50
    kept = ForeignEvent.objects.order_by("event_id")
    assert [one.event_id for one in kept] == sorted(decode(value).event_id for value in events)
    assert sum(amount for _, amount in sums().values()) == sum(one.amount for one in kept)


@pytest.mark.parametrize(
    "change",
    [
        {"totalAmount": 999.0},
        {"timestamp": "2001-01-01T00:00:00Z"},
        {"totalAmount": 0, "timestamp": "9999-12-31T23:59:59.999Z", "more": "fields"},
    ],
)
def test_our_own_event_counts_as_recorded(change: dict[str, Any]) -> None:
    """Another program sends a copy with the same identity and other content. The sums still follow the outbox."""
    values = place_orders(3)
    forged = [json.dumps(json.loads(value) | change).encode() for value in values]
    handle(forged)
    handle(values)
    assert sums() == sums_of_history()
    assert ForeignEvent.objects.count() == 0


@pytest.mark.parametrize("change", [{"userId": 7}, {"orderId": 7}, {"eventType": "ORDER_PAID"}])
def test_an_event_with_the_id_of_another_is_foreign(change: dict[str, Any]) -> None:
    (value,) = place_orders(1)[:1]
    handle([json.dumps(json.loads(value) | change).encode()])
    assert ForeignEvent.objects.get().event_id == decode(value).event_id
    (letter,) = deliver(SALES, [value])
    assert letter.error_class.endswith("EventIdConflict")
    assert sum(count for count, _ in sums().values()) == 1


def test_events_of_the_history_are_our_own() -> None:
    values = place_orders(2)
    _publish_all()
    move_to_history(list(OutboxEvent.objects.values_list("pk", flat=True)))
    assert recorded_values() == []
    handle(values)
    assert sums() == sums_of_history()
    assert ForeignEvent.objects.count() == 0


def _publish_all() -> None:
    OutboxEvent.objects.update(published_at=now(), published_partition=0, published_offset=0)


@pytest.mark.parametrize(
    ("at", "amount"),
    [
        ("0001-01-01T00:00:00Z", "1.00"),
        ("9999-12-31T23:59:59.999Z", "1.00"),
        ("2025-01-30T10:15:59.999Z", "-5.00"),
        ("2025-01-30T10:15:00Z", "0.00"),
        ("1969-12-31T23:59:59.999Z", "99999999999999999999999999.99"),
        ("2025-01-30T10:15:00Z", "-99999999999999999999999999.99"),
    ],
)
def test_odd_events_are_added_exactly(at: str, amount: str) -> None:
    moment = datetime.fromisoformat(at)
    handle([foreign(timestamp=moment, total_amount=Decimal(amount)) for _ in range(11)])
    (sum_of_all,) = sums().values()
    assert sum_of_all == (11, Decimal(11 * int(amount.replace(".", ""))).scaleb(-2, Context(prec=50)))
    assert list(sums()) == [(moment.replace(second=0, microsecond=0), ORDER_CREATED)]
    assert ForeignEvent.objects.filter(amount=Decimal(amount), occurred_at=moment).count() == 11


def test_summary_counts_each_type_for_its_customer() -> None:
    early, late = MINUTE, MINUTE.replace(hour=11)
    handle(
        [
            foreign(ORDER_CREATED, user_id=7, timestamp=late),
            foreign(ORDER_CREATED, user_id=7, timestamp=early),
            foreign(ORDER_PAID, user_id=7, timestamp=late.replace(hour=12), total_amount=Decimal("3.10")),
            foreign(ORDER_PAID, user_id=7, total_amount=Decimal("0.05")),
            foreign(ORDER_CANCELLED, user_id=7, total_amount=Decimal("3.10")),
            foreign(ORDER_PAID, user_id=8, total_amount=Decimal("1.00")),
        ]
    )
    assert sums("sales_customersummary") == {
        (7,): (2, 2, 1, Decimal("3.15"), late),
        (8,): (0, 1, 0, Decimal("1.00"), None),
    }


def test_each_partition_has_rows_of_its_own() -> None:
    """Each partition adds to its own rows, so that two consumers never wait for the same row."""
    for partition in (0, 1, 1):
        handle([foreign(user_id=7, timestamp=MINUTE)], partition=partition)
    assert sorted(SalesBucket.objects.values_list("partition", "count")) == [(0, 1), (1, 2)]
    assert sorted(CustomerSummary.objects.values_list("partition", "orders")) == [(0, 1), (1, 2)]


def test_a_rebuild_in_the_making_gets_each_event_too() -> None:
    Generations.objects.create(live=3, building=5, latest=5)
    handle(foreign_events(30))
    by_generation = {
        generation: sorted(
            SalesBucket.objects.filter(generation=generation).values_list("minute", "event_type", "count", "amount")
        )
        for generation in (3, 5)
    }
    assert by_generation[3] == by_generation[5]
    assert SalesBucket.objects.exclude(generation__in=(3, 5)).count() == 0


@pytest.mark.parametrize(("foreign_ones", "statements"), [(0, 3), (40, 4)])
def test_a_batch_takes_few_statements(foreign_ones: int, statements: int) -> None:
    """The statements claim the events, compare them with outbox and history, and add the events to the sums.

    One more statement saves copies of the foreign events, if there are any.
    """
    values = [*place_orders(20), *foreign_events(foreign_ones)]
    with CaptureQueriesContext(connection) as queries:
        handle(values)
    ours = [query["sql"] for query in queries if "json_to_recordset" in query["sql"]]
    assert len(ours) == statements
