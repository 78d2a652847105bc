"""Operations on orders. Each change and its event commit in one transaction."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from events.bulk import update_rows
from events.database_clock import DatabaseClock
from events.outbox import recording as outbox
from events.wire.headers import cloud_event_headers, pack
from events.wire.messages import Message
from events.wire.timestamps import now
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, OrderEvent, OrderEventType, encode
from orders.history import stored_rows
from orders.models import LINES, Order, OrderItem, UnknownHistory
from orders.processes import Process, controlling

LOCK_IF_PENDING = "SELECT id FROM orders_order WHERE id = %s AND status = 'PENDING' FOR UPDATE"
"""SQL query that locks an order's row and returns its id. If the order is not PENDING, it returns no row.

Its parameter is the order's id. A service whose change is a single SQL statement includes this query in its WITH
clause.
"""


class Line(NamedTuple):
    """One line of an order to place. `price` is per piece."""

    product_id: int
    quantity: int
    price: Decimal


class Change(NamedTuple):
    """A changed order and its event. Publish the event after the transaction commits."""

    order: Order
    event: Message


class HandedOver(NamedTuple):
    """An order that a business process controls, such as the fulfilment. This process has agreed to cancel the order.

    Publish `messages`, which the process has recorded, after the transaction commits.
    """

    order: Order
    messages: list[Message]


class UnderControl(Exception):
    """A business process, such as the fulfilment, controls the order, so nothing else may change it."""

    def __init__(self, order: Order, process: Process) -> None:
        super().__init__(f"{order} is under the control of its {process.name}, which alone may change it.")
        self.order = order


def place_order(*, user_id: int, lines: Sequence[Line], order_id: int | None = None) -> Change:
    """Insert a new order and its event.

    `order_id` is an id already drawn from `NEXT_ID`; by default this function draws one.
    """
    order = Order(
        pk=order_id or Order.objects.next_id(),
        user_id=user_id,
        total_amount=sum((line.price * line.quantity for line in lines), Decimal("0.00")),
    )
    order.number_event()
    # `order_id`, not `order`: a reference cycle would keep both in memory until the garbage collector runs.
    order.lines = [OrderItem(order_id=order.pk, **line._asdict()) for line in lines]
    event = _event(order, ORDER_CREATED, order.last_sequence, order.created_at)
    Order.objects.insert(order, event)
    return Change(order, event)


def pay_order(*, order_id: int, user_id: int | None = None) -> Change:
    """Pay an order. If `user_id` is None, the order may belong to any user.

    Raises:
        Order.DoesNotExist: there is no such order, or it does not belong to `user_id`.
        UnderControl: a business process, such as the fulfilment, controls the order.
        InvalidTransition: the order is not PENDING.
    """
    return _change_order(Order.pay, ORDER_PAID, order_id=order_id, user_id=user_id)


def cancel_order(*, order_id: int, user_id: int | None = None) -> Change:
    """Cancel an order. If `user_id` is None, the order may belong to any user.

    Raises:
        Order.DoesNotExist: there is no such order, or it does not belong to `user_id`.
        UnderControl: a business process, such as the fulfilment, controls the order.
        InvalidTransition: the order is CANCELLED already.
    """
    return _change_order(Order.cancel, ORDER_CANCELLED, order_id=order_id, user_id=user_id)


@transaction.atomic
def request_cancellation(*, order_id: int, user_id: int | None = None) -> Change | HandedOver:
    """Cancel an order, or let the process that controls it cancel it.

    Return a `Change` if this call has cancelled the order, and `HandedOver` if the process takes over. If `user_id` is
    None, the order may belong to any user.

    Raises:
        Order.DoesNotExist: there is no such order, or it does not belong to `user_id`.
        InvalidTransition: the order is CANCELLED already.
    """
    order = lock_order(order_id=order_id, user_id=user_id)
    process = controlling(order)
    if process is None or not order.may_become(Order.Status.CANCELLED):
        change = mark_as_cancelled(order)
        save_changes(change)
        return change
    return HandedOver(order, process.cancel(order))


def find_order(*, order_id: int, user_id: int) -> Order:
    """Return an order, and do not lock its row.

    Raise Order.DoesNotExist if there is no such order, or if it does not belong to `user_id`.
    """
    return _reading().get(pk=order_id, user_id=user_id)


def lock_order(*, order_id: int, user_id: int | None = None) -> Order:
    """Return an order with its row locked until the caller's transaction ends.

    Raise Order.DoesNotExist if there is no such order, or if it does not belong to `user_id`. With None, the order may
    belong to any user.
    """
    owner = {} if user_id is None else {"user_id": user_id}
    return _reading().select_for_update().get(pk=order_id, **owner)


def lock_orders(order_ids: Collection[int]) -> dict[int, Order]:
    """Lock the rows of orders until the caller's transaction ends. Return the orders with their items, by order id.

    An id without an order is left out. Rows are locked in the order of their ids, because two processes that lock them
    in different orders would deadlock.
    """
    rows = _reading().select_for_update().filter(pk__in=order_ids).order_by("pk")
    return {order.pk: order for order in rows.prefetch_related(LINES)}


def _reading() -> QuerySet[Order]:
    orders: Any = Order.objects.all()
    return orders.annotate(read_at=DatabaseClock())


def mark_as_paid(order: Order) -> Change:
    """Mark the order as paid in memory, and return this change with its event. `save_changes` writes both.

    The caller holds the lock of the order's row. Raises InvalidTransition if the order is not PENDING.
    """
    return _change(order, Order.pay, ORDER_PAID)


def mark_as_cancelled(order: Order) -> Change:
    """Mark the order as cancelled in memory, and return this change with its event. `save_changes` writes both.

    The caller holds the lock of the order's row. Raises InvalidTransition if the order is CANCELLED already.
    """
    return _change(order, Order.cancel, ORDER_CANCELLED)


def save_changes(*changes: Change) -> None:
    """Write the rows of changed orders, which the caller has locked, and record the events in the given sequence."""
    changed = {change.order.pk: change.order for change in changes}
    update_rows(list(changed.values()), ["status", "last_sequence", "event_ids"])
    outbox.record_all([change.event for change in changes])


@transaction.atomic
def _change_order(
    transition: Callable[[Order], None], event_type: OrderEventType, *, order_id: int, user_id: int | None
) -> Change:
    order = lock_order(order_id=order_id, user_id=user_id)
    if process := controlling(order):
        raise UnderControl(order, process)
    change = _change(order, transition, event_type)
    save_changes(change)
    return change


def _change(order: Order, transition: Callable[[Order], None], event_type: OrderEventType) -> Change:
    transition(order)
    return Change(order, _event(order, event_type, order.last_sequence, now()))


@transaction.atomic
def record_lost_event(*, order_id: int, sequence: int) -> Message:
    """Record the event of an earlier change of an order again, under the same id, after the event's row was lost.

    The caller has made sure that the history does not have the event.

    Raises:
        Order.DoesNotExist: there is no such order.
        UnknownHistory: the type of the event cannot be known.
        django.db.IntegrityError: the outbox still has the event.
    """
    order = Order.objects.select_for_update().get(pk=order_id)
    if sequence > len(order.event_types):
        raise UnknownHistory(f"{order} is {order.status}, and has no event number {sequence}")
    event_type = order.event_types[sequence - 1]
    return outbox.record(_event(order, event_type, sequence, _time_of_lost_event(order, sequence)))


def _time_of_lost_event(order: Order, sequence: int) -> datetime:
    """Return the timestamp for a lost event: for the first event, the order's `created_at`.

    The time of a later event is not known. It gets the time of the previous event that still has a row in the outbox or
    the history, else that of the next one, else `created_at`. With a later time, an old change could look new, and the
    user would get a mail.
    """
    if sequence == 1:
        return order.created_at
    others = stored_rows(column="stream", values=[order.stream])
    later = [row.created_at for row in others if (row.sequence or 0) > sequence]
    earlier = [row.created_at for row in others if (row.sequence or 0) < sequence]
    return (earlier[-1:] or later[:1] or [order.created_at])[0]


def _event(order: Order, event_type: OrderEventType, sequence: int, timestamp: datetime) -> Message:
    event = OrderEvent(
        event_id=order.event_id(sequence),
        event_type=event_type,
        timestamp=timestamp,
        order_id=order.pk,
        user_id=order.user_id,
        total_amount=order.total_amount,
    )
    return Message(
        event_id=event.event_id,
        event_type=event_type,
        topic=settings.ORDER_EVENTS_TOPIC,
        key=str(order.pk).encode(),
        value=encode(event),
        headers=pack(
            cloud_event_headers(
                event_id=event.event_id,
                event_type=event_type,
                source="/orders",
                time=timestamp,
                subject=str(order.pk),
                sequence=sequence,
            )
        ),
        stream=order.stream,
        sequence=sequence,
        created_at=timestamp,
    )
