"""Orders with their events, events of other programs, and the sums that follow from them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import uuid4

from django.db import connection

from events.models import OutboxEvent
from events.testing import deliver
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, OrderEvent, OrderEventType, encode
from orders.services import Line, cancel_order, pay_order, place_order
from sales.subscriptions import SALES
from testkit.factories import OrderEventFactory, UserFactory


def place_orders(count: int, *, price: str = "12.34") -> list[bytes]:
    """Place orders of two customers, and pay every second order. Cancel every third, paid or not.

    Return the values of all events in the outbox, oldest first.
    """
    users = [UserFactory.create().pk for _ in range(2)]
    for number in range(count):
        order = place_order(user_id=users[number % 2], lines=[Line(1, number + 1, Decimal(price))]).order
        if number % 2:
            pay_order(order_id=order.pk)
        if number % 3 == 0:
            cancel_order(order_id=order.pk)
    return recorded_values()


def recorded_values() -> list[bytes]:
    """Return the values of all events in the outbox, oldest first."""
    return [bytes(value) for value in OutboxEvent.objects.order_by("pk").values_list("value", flat=True)]


def foreign(event_type: OrderEventType = ORDER_CREATED, **fields: Any) -> bytes:
    """Return the value of an event that another program sent."""
    return encode(OrderEventFactory.build(event_type=event_type, **fields))


def foreign_events(count: int, *, seed: int = 1) -> list[bytes]:
    """Return `count` encoded events of orders that this site does not have.

    They belong to at most five customers, and their times lie within two hours. The same `seed` gives the same events,
    except for the event ids.
    """
    random = Random(seed)
    start = datetime(2025, 1, 30, 10, tzinfo=UTC)
    return [
        encode(
            OrderEvent(
                event_id=uuid4(),
                event_type=random.choice((ORDER_CREATED, ORDER_PAID, ORDER_CANCELLED)),
                timestamp=start + timedelta(milliseconds=random.randrange(7_200_000)),
                order_id=10**12 + number,
                user_id=10**12 + random.randrange(5),
                total_amount=Decimal(random.randrange(100_000)).scaleb(-2),
            )
        )
        for number in range(count)
    ]


def handle(values: Sequence[bytes], *, partition: int = 0) -> None:
    """Let the group handle the values in one batch. Raises AssertionError if one becomes a dead letter."""
    assert deliver(SALES, values, partition=partition) == []


def sums(table: str = "sales_salesbucket") -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the sums that readers see in `table` (the live generation), added up over all partitions.

    The keys are (minute, event type) for `sales_salesbucket`, and (user id,) for `sales_customersummary`.
    """
    keys, values = {
        "sales_salesbucket": ("minute, event_type", "sum(count)::int, sum(amount)"),
        "sales_customersummary": (
            "user_id",
            "sum(orders)::int, sum(paid)::int, sum(cancelled)::int, sum(amount_paid), max(last_order_at)",
        ),
    }[table]
    return _by_key(
        f"SELECT {keys}, {values} FROM {table}"
        f" WHERE generation = coalesce((SELECT live FROM sales_generations), 0) GROUP BY {keys}",
        len(keys.split(",")),
    )


def sums_of_history() -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the sums by minute and type over this site's own events. The SQL shares nothing with the product."""
    return _by_key(
        """
        SELECT date_trunc('minute', created_at), event_type, count(*)::int,
            sum((convert_from(value, 'UTF8')::jsonb ->> 'totalAmount')::numeric)
        FROM (
            SELECT created_at, event_type, value FROM events_outboxevent WHERE stream IS NOT NULL
            UNION ALL SELECT created_at, event_type, value FROM orders_orderhistory
        ) AS recorded GROUP BY 1, 2
        """,
        2,
    )


def _by_key(sql: str, keys: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        rows: Iterable[tuple[Any, ...]] = cursor.fetchall()
    return {row[:keys]: row[keys:] for row in rows}
