"""The event store: the events of every order, from the outbox and from the history to which old rows are moved.

`fold` computes an order from its events, as it is now or as it was at an earlier time.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

from django.db import connection, transaction

from events.models import OutboxEvent
from events.troubles import Poison
from events.wire.messages import Message
from orders.events import (
    ORDER_CANCELLED,
    ORDER_CREATED,
    ORDER_PAID,
    STREAM_PREFIX,
    OrderEvent,
    OrderEventType,
    decode,
    stream_of,
)
from orders.models import Order, OrderHistory

_OUTBOX = OutboxEvent._meta.db_table
_HISTORY = OrderHistory._meta.db_table
_COLUMNS = "id, event_id, event_type, stream, sequence, value, created_at, recorded_at"

RECORDED_EVENTS = f"""
    SELECT {_COLUMNS} FROM (
        SELECT {_COLUMNS} FROM {_OUTBOX}
        UNION ALL
        SELECT {_COLUMNS} FROM {_HISTORY}
    ) AS stored
    WHERE stream ^@ '{STREAM_PREFIX}'
    """  # noqa: S608 - it contains no input
"""Subquery over the events of all orders: `FROM ({RECORDED_EVENTS}) AS recorded`. It contains no `%`.

A row moves from one table to the other in one transaction, so one snapshot has each event once. PostgreSQL uses the
indexes of both tables for conditions on `id`, `event_id` and `stream`, also for those of a join. This is why the WHERE
is outside of the UNION: PostgreSQL uses no index for a join with a branch that has a condition of its own.
"""

_MESSAGE = ", ".join(name for name in Message._fields if name != "dead_letter_id")
_PUBLISHED = "published_at, published_path, published_partition, published_offset"
_SHOWN = f"id, event_id, event_type, topic, partition, stream, sequence, created_at, recorded_at, {_PUBLISHED}"

# The condition on the history keeps a row that is in both tables, which only another program can cause. `verify_orders`
# names its order.
_MOVE = f"""
    WITH taken AS (
        DELETE FROM {_OUTBOX} AS event
        WHERE id = ANY(%s) AND stream ^@ '{STREAM_PREFIX}' AND published_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM {_HISTORY} AS kept
            WHERE kept.id = event.id OR kept.event_id = event.event_id
                OR kept.stream = event.stream AND kept.sequence = event.sequence
        )
        RETURNING id, {_MESSAGE}, recorded_at, {_PUBLISHED}
    )
    INSERT INTO {_HISTORY} (id, {_MESSAGE}, recorded_at, {_PUBLISHED}) SELECT * FROM taken
    """  # noqa: S608 - it contains no input
_MOVE_BACK = f"""
    WITH taken AS (DELETE FROM {_HISTORY} WHERE event_id = ANY(%s) RETURNING id, {_MESSAGE})
    INSERT INTO {_OUTBOX} (id, {_MESSAGE}, parked_reason) SELECT *, '' FROM taken
    """  # noqa: S608 - it contains no input


def move_to_history(row_ids: Sequence[int]) -> int:
    """Move those outbox rows of `row_ids` that are published events of orders to the history. Return the number moved.

    A row is not moved if the history already has its primary key, its event id, or its stream and sequence.
    """
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, [list(row_ids)])
        return int(cursor.rowcount)


def send_again_from_history(event_ids: Iterable[UUID]) -> int:
    """Move events back to the outbox, pending and under their own ids. Return the number of moved rows."""
    with maintenance(), connection.cursor() as cursor:
        cursor.execute(_MOVE_BACK, [list(event_ids)])
        return int(cursor.rowcount)


@contextmanager
def maintenance() -> Iterator[None]:
    """Allow the block to change the history and items of orders, in a transaction of its own or the caller's.

    Outside of such a block, triggers of the database refuse UPDATE, DELETE and TRUNCATE of these tables.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting('commerce.maintenance', TRUE), '')")
        (before,) = cursor.fetchone()
        cursor.execute("SELECT set_config('commerce.maintenance', 'on', TRUE)")
        yield
        # After an error the rollback of the block does this.
        cursor.execute("SELECT set_config('commerce.maintenance', %s, TRUE)", [before])


def stored_rows(*, column: Literal["stream", "event_id"], values: Collection[Any]) -> list[OutboxEvent]:
    """Return the rows of outbox and history whose `column` has one of `values`, sorted by stream and sequence.

    One snapshot of both tables yields them. Key, value, headers and dead letter are not loaded. The attribute `moved`
    of a row says whether it is in the history. Both tables give an event the same primary key.
    """
    kind = {"stream": "text", "event_id": "uuid"}[column]
    sql = f"""
        SELECT {_SHOWN}, NULL::bigint AS dead_letter_id, parked_at, parked_reason, FALSE AS moved
        FROM {_OUTBOX} WHERE {column} = ANY(%s::{kind}[])
        UNION ALL
        SELECT {_SHOWN}, NULL, NULL, '', TRUE FROM {_HISTORY} WHERE {column} = ANY(%s::{kind}[])
        ORDER BY stream, sequence, id
        """  # noqa: S608 - the column is one of two
    return list(OutboxEvent.objects.raw(sql, [list(values)] * 2))


class RecordedEvent(NamedTuple):
    """A stored event of an order. The fields are columns of the subquery RECORDED_EVENTS."""

    sequence: int
    event_id: UUID
    event_type: str
    created_at: datetime
    value: bytes | None


class OrderState(NamedTuple):
    """The state of an order as its events give it. It lacks the items, which never change."""

    user_id: int
    total_amount: Decimal
    status: str
    created_at: datetime
    event_ids: list[UUID]
    """The ids of the order's events, by sequence."""


class BrokenHistory(Exception):
    """The stored events of an order are no history: one is missing, doubled, unreadable, or cannot follow another."""


STATUS_AFTER: dict[OrderEventType, Order.Status] = {
    ORDER_CREATED: Order.Status.PENDING,
    ORDER_PAID: Order.Status.PAID,
    ORDER_CANCELLED: Order.Status.CANCELLED,
}


def events_of_order(order_id: int) -> list[RecordedEvent]:
    """Return the stored events of an order by sequence."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {", ".join(RecordedEvent._fields)} FROM ({RECORDED_EVENTS}) AS recorded
            WHERE stream = %s ORDER BY sequence, id
            """,  # noqa: S608 - it contains no input
            [stream_of(order_id)],
        )
        return [RecordedEvent(*row) for row in cursor]


def order_as_of(order: Order, moment: datetime | None) -> Order | None:
    """Return the order as it was at `moment`, unsaved and with its items; None before its first event.

    If `moment` is None, return the order as it is now.

    Raises:
        BrokenHistory: an event up to `moment` is or may be missing, is stored twice, is unreadable, or cannot follow
            another event, or the first event after `moment` is unreadable.
    """
    events = events_of_order(order.pk)
    if moment is not None and moment < order.created_at and not (events and events[0].sequence == 1):
        return None
    state = fold(order.pk, events, as_of=moment)
    number = len(state.event_ids) if state else 0
    # If no event after `moment` is stored, the missing events may have happened before or after `moment`.
    if number == len(events) < order.last_sequence:
        raise BrokenHistory(f"{named(range(number + 1, order.last_sequence + 1))} missing")
    if state is None:
        return None
    then = Order(
        pk=order.pk,
        user_id=state.user_id,
        total_amount=state.total_amount,
        status=state.status,
        created_at=state.created_at,
        last_sequence=number,
        event_ids=state.event_ids,
    )
    then.lines = order.lines
    return then


def fold(order_id: int, events: Sequence[RecordedEvent], *, as_of: datetime | None = None) -> OrderState | None:
    """Return the state of an order as of the time `as_of`, by default after all `events`; None before the first event.

    `events` are sorted by sequence. Their times cannot order them, because the clocks of several processes give the
    times. So the state as of a time leaves out the first event with a later time, and all events after it.

    Raises:
        BrokenHistory: an event up to that time is or may be missing, is stored twice, is unreadable, or cannot follow
            another event, or the first event after that time is unreadable.
    """
    state: OrderState | None = None
    for number, stored in enumerate(events, start=1):
        if stored.sequence != number:
            raise BrokenHistory(
                f"event {stored.sequence} is stored twice"
                if stored.sequence < number
                else f"{named(range(number, stored.sequence))} missing"
            )
        event = _read(order_id, stored)
        if as_of is not None and event.timestamp > as_of:
            return state
        state = _after(state, event, number)
    return state


def named(numbers: Sequence[int]) -> str:
    """Return the subject of a sentence about events with consecutive numbers: `event 2 is`, `events 2 to 9 are`."""
    return f"event {numbers[0]} is" if len(numbers) == 1 else f"events {numbers[0]} to {numbers[-1]} are"


def _read(order_id: int, stored: RecordedEvent) -> OrderEvent:
    """Return the event in the value of `stored`. Raise BrokenHistory if it is invalid or contradicts the row."""
    number = stored.sequence
    try:
        event = decode(None if stored.value is None else bytes(stored.value))
    except Poison as error:
        raise BrokenHistory(f"event {number} cannot be read: {error}") from error
    for name, said, column in (
        ("eventId", event.event_id, stored.event_id),
        ("eventType", event.event_type, stored.event_type),
        ("orderId", event.order_id, order_id),
        ("timestamp", event.timestamp, stored.created_at),
    ):
        if said != column:
            raise BrokenHistory(f"event {number} has {name} {said} in its value, and {column} in its row")
    return event


def _after(state: OrderState | None, event: OrderEvent, number: int) -> OrderState:
    """Return the state after event `number`. Raise BrokenHistory if the event cannot follow the ones before it."""
    status = STATUS_AFTER[event.event_type]
    if state is None:
        if event.event_type != ORDER_CREATED:
            raise BrokenHistory(f"event 1 is {event.event_type}, not {ORDER_CREATED}")
        return OrderState(event.user_id, event.total_amount, status, event.timestamp, [event.event_id])
    if state.status not in Order.ALLOWED_FROM.get(status, ()):
        raise BrokenHistory(f"event {number} is {event.event_type}, which an order in {state.status} cannot have")
    if (event.user_id, event.total_amount) != (state.user_id, state.total_amount):
        raise BrokenHistory(
            f"event {number} has user {event.user_id} and total {event.total_amount}, and event 1 has "
            f"user {state.user_id} and total {state.total_amount}"
        )
    return state._replace(status=status, event_ids=[*state.event_ids, event.event_id])
