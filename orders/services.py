"""What can be done with orders. Each change and its event are one transaction, or neither."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from django.conf import settings
from django.db import transaction

from events.headers import cloud_event_headers, pack
from events.messages import Message
from events.models import OutboxEvent
from events.outbox import recording as outbox
from events.timestamps import now
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, OrderEvent, OrderEventType, encode
from orders.models import Order, OrderItem


class Line(NamedTuple):
    """One line of an order to be placed; `price` is that of one piece."""

    product_id: int
    quantity: int
    price: Decimal


class Change(NamedTuple):
    """A changed order and the recorded event that tells of it, to be published once the transaction has committed."""

    order: Order
    event: Message


def place_order(*, user_id: int, lines: Sequence[Line], order_id: int | None = None) -> Change:
    """`order_id` is a `NEXT_ID` that was drawn for this order; without one it is drawn here."""
    order = Order(
        pk=order_id or Order.objects.next_id(),
        user_id=user_id,
        total_amount=sum((line.price * line.quantity for line in lines), Decimal("0.00")),
    )
    order.number_event()
    # Not `order=order`: order and items would hold each other, and wait for the garbage collector.
    order.lines = [OrderItem(order_id=order.pk, **line._asdict()) for line in lines]
    event = _event(order, ORDER_CREATED, order.last_sequence, order.created_at)
    Order.objects.insert(order, event)
    return Change(order, event)


def pay_order(*, order_id: int, user_id: int | None = None) -> Change:
    """Raises Order.DoesNotExist, also where it is not `user_id`'s; InvalidTransition."""
    return _change_order(Order.pay, ORDER_PAID, order_id=order_id, user_id=user_id)


def cancel_order(*, order_id: int, user_id: int | None = None) -> Change:
    """Raises Order.DoesNotExist, also where it is not `user_id`'s; InvalidTransition."""
    return _change_order(Order.cancel, ORDER_CANCELLED, order_id=order_id, user_id=user_id)


@transaction.atomic
def _change_order(
    transition: Callable[[Order], None], event_type: OrderEventType, *, order_id: int, user_id: int | None
) -> Change:
    mine = {} if user_id is None else {"user_id": user_id}
    order = Order.objects.select_for_update().get(pk=order_id, **mine)
    transition(order)
    order.save(update_fields=["status", "last_sequence", "event_ids"])
    return Change(order, outbox.record(_event(order, event_type, order.last_sequence, now())))


@transaction.atomic
def record_lost_event(*, order_id: int, sequence: int) -> Message:
    """Record the event of an earlier change once more, under its own id, after its outbox row got lost.

    Raises UnknownHistory.
    """
    order = Order.objects.select_for_update().get(pk=order_id)
    event_type = order.event_types[sequence - 1]
    return outbox.record(_event(order, event_type, sequence, _time_of_lost_event(order, sequence)))


def _time_of_lost_event(order: Order, sequence: int) -> datetime:
    """Return the order's own time for its first event. Of a later one only an upper bound is known: the time of the
    next event that still has its row, or else now.
    """
    if sequence == 1:
        return order.created_at
    later = OutboxEvent.objects.filter(stream=order.stream, sequence__gt=sequence)
    return later.order_by("sequence").values_list("created_at", flat=True).first() or now()


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
