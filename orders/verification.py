"""Compare each order with the state that its events give, and find events whose order is gone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from django.db import connection

from events.database import in_steps
from events.models import OutboxEvent
from events.process.progress import ProgressLine
from events.wire.timestamps import rfc3339
from orders.events import STREAM_PREFIX
from orders.history import RECORDED_EVENTS, BrokenHistory, OrderState, RecordedEvent, fold, named
from orders.models import Order, OrderHistory

BATCH_ORDERS = 1_000
"""Number of orders that one query reads with their events. An order has at most three events."""
BATCH_EVENTS = 5_000
"""Number of events whose orders one query looks for."""

# One statement, so that a row and its events come from one snapshot while orders change and rows move.
ORDERS_WITH_EVENTS = f"""
    SELECT placed.*, {", ".join(f"event.{name}" for name in RecordedEvent._fields)}
    FROM (
        SELECT id, user_id, total_amount, status, created_at, last_sequence, event_ids,
               (SELECT sum(price * quantity) FROM orders_orderitem WHERE order_id = one.id) AS items_total
        FROM orders_order AS one WHERE id BETWEEN %s AND %s
    ) AS placed
    LEFT JOIN ({RECORDED_EVENTS}) AS event ON event.stream = '{STREAM_PREFIX}' || placed.id
    ORDER BY placed.id, event.sequence, event.id
    """  # noqa: S608 - it contains no input

# An order's id is compared only if the stream ends in digits. Only the first event of a stream yields the stream.
EVENTS_WITHOUT_ORDER = f"""
    SELECT stream FROM {{table}} AS recorded
    WHERE id BETWEEN %s AND %s AND stream ^@ '{STREAM_PREFIX}' AND NOT EXISTS (
        SELECT FROM orders_order AS placed
        WHERE placed.id = CASE WHEN stream ~ '^{STREAM_PREFIX}[1-9][0-9]{{{{0,17}}}}$'
                               THEN substr(stream, {len(STREAM_PREFIX) + 1})::bigint END
    ) AND NOT EXISTS (
        SELECT FROM ({RECORDED_EVENTS}) AS earlier
        WHERE earlier.stream = recorded.stream AND (earlier.sequence, earlier.id) < (recorded.sequence, recorded.id)
    )
    ORDER BY id
    """  # noqa: S608 - it contains no input
"""Statement that finds streams whose order does not exist, in a range of ids of `{table}`, outbox or history."""


class OrderRow(NamedTuple):
    """An order's row with one of its events, as ORDERS_WITH_EVENTS reads them.

    An order without events has one row, in which the fields of the event are None.
    """

    id: int
    user_id: int
    total_amount: Decimal
    status: str
    created_at: datetime
    last_sequence: int
    event_ids: list[UUID] | None
    items_total: Decimal | None
    sequence: int | None
    event_id: UUID
    event_type: str
    event_created_at: datetime
    value: bytes | None

    @property
    def event(self) -> RecordedEvent:
        assert self.sequence is not None
        return RecordedEvent(self.sequence, self.event_id, self.event_type, self.event_created_at, self.value)


@dataclass(kw_only=True)
class Verified:
    """What `verify_orders` has found in one step: a batch of orders, or of events in the outbox or the history."""

    checked: int = 0
    """Number of orders that the step checked. This includes orders that do not exist and have events."""
    wrong: list[str] = field(default_factory=list)
    """One sentence about each order that differs from its events, or that does not exist and has events."""
    incomplete: int = 0
    """Number of orders that lack events, if the caller allows this. They could not be compared."""


def verify_orders(*, allows_discarded: bool, progress: ProgressLine) -> Iterator[Verified]:
    """Compare all orders with their events, and yield the findings of each step. The comparison locks no rows.

    With `allows_discarded`, an order that lacks events counts as incomplete, not as wrong.
    """
    for ids in in_steps(Order.objects.all(), size=BATCH_ORDERS, report=progress.of("orders")):
        yield _verify_step(ids[0], ids[-1], allows_discarded=allows_discarded)
    for rows, name in ((OutboxEvent.objects.all(), "outbox"), (OrderHistory.objects.all(), "history")):
        for ids in in_steps(rows, size=BATCH_EVENTS, report=progress.of(name)):
            with connection.cursor() as cursor:
                cursor.execute(EVENTS_WITHOUT_ORDER.format(table=rows.model._meta.db_table), [ids[0], ids[-1]])
                wrong = [f"There are events of {stream}, and no such order." for (stream,) in cursor]
            yield Verified(checked=len(wrong), wrong=wrong)


def _verify_step(first: int, last: int, *, allows_discarded: bool) -> Verified:
    step = Verified()
    with connection.cursor() as cursor:
        cursor.execute(ORDERS_WITH_EVENTS, [first, last])
        for _, found in groupby(map(OrderRow._make, cursor), key=attrgetter("id")):
            rows = list(found)
            events = [row.event for row in rows if row.sequence is not None]
            step.checked += 1
            if allows_discarded and _lacks_events(rows[0], events):
                step.incomplete += 1
            elif differences := _differences(rows[0], events):
                step.wrong.append(f"Order {rows[0].id}: {'; '.join(differences)}.")
    return step


def _lacks_events(order: OrderRow, events: Sequence[RecordedEvent]) -> bool:
    """Return whether the order has fewer stored events than its `last_sequence` says.

    Return False if `last_sequence` is impossible for the order's status.
    """
    is_possible = (order.status, order.last_sequence) in Order.EVENT_TYPES
    return is_possible and len({event.sequence for event in events}) < order.last_sequence


def _differences(order: OrderRow, events: Sequence[RecordedEvent]) -> list[str]:
    """Return how the order's row differs from its events, one clause per difference."""
    try:
        state = fold(order.id, events)
    except BrokenHistory as error:
        return [str(error)]
    if state is None:
        return ["it has no events"]
    differences = [
        f"{column} is {said}, and its events give {folded}"
        for column, said, folded in (
            ("status", order.status, state.status),
            ("total_amount", order.total_amount, state.total_amount),
            ("user_id", order.user_id, state.user_id),
            ("created_at", rfc3339(order.created_at), rfc3339(state.created_at)),
        )
        if said != folded
    ]
    stored = len(state.event_ids)
    if order.last_sequence != stored:
        missing = range(stored + 1, order.last_sequence + 1)
        says = f", and {named(missing)} missing" if missing else f", and its last event is number {stored}"
        differences.append(f"last_sequence is {order.last_sequence}{says}")
    elif wrong_id := _wrong_id(order, state):
        differences.append(wrong_id)
    if order.items_total is None:
        differences.append("it has no items")
    elif order.items_total != state.total_amount:
        differences.append(f"its items amount to {order.items_total}, and event 1 says {state.total_amount}")
    return differences


def _wrong_id(order: OrderRow, state: OrderState) -> str | None:
    """Return a clause about the first event whose id differs from its id in the order's row; None if all ids agree."""
    if order.event_ids == state.event_ids:
        return None
    # An order of an earlier release stores no ids. `Order.event_id` knows how they were made.
    placed = Order(pk=order.id, created_at=order.created_at, event_ids=order.event_ids)
    for number, event_id in enumerate(state.event_ids, start=1):
        if (said := placed.event_id(number)) != event_id:
            return f"event_ids give event {number} the id {said}, and it has {event_id}"
    return None
