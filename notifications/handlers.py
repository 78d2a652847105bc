"""From order events to notifications: which text an event becomes, and how a batch is saved."""

import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import transaction

from events.kafka import Record
from events.metrics import count_consumed
from notifications.models import Notification
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, OrderEvent, OrderEventType, decode

TEXTS: dict[OrderEventType, str] = {
    ORDER_CREATED: "주문이 생성되었습니다. 주문번호: {order_id}, 금액: {total_amount:.2f}원",
    ORDER_PAID: "결제가 완료되었습니다. 주문번호: {order_id}, 금액: {total_amount:.2f}원",
    ORDER_CANCELLED: "주문이 취소되었습니다. 주문번호: {order_id}, 금액: {total_amount:.2f}원",
}


def to_notification(event: OrderEvent) -> Notification:
    return Notification(
        user_id=event.user_id,
        order_id=event.order_id,
        event_id=event.event_id,
        type=event.event_type,
        message=TEXTS[event.event_type].format(order_id=event.order_id, total_amount=event.total_amount),
    )


class NotificationHandler:
    """Handler of order events for `events.consumer`."""

    def decode(self, record: Record) -> OrderEvent:
        return decode(record.value)

    def save(self, events: Sequence[OrderEvent]) -> None:
        """One INSERT; an event that has its notification already is left alone by the unique event id."""
        inserted = Notification.objects.insert_new([to_notification(event) for event in events])
        new = events if len(inserted) == len(events) else _first_of_each(events, inserted)
        transaction.on_commit(lambda: count_consumed(events=events, new=new, saved_at=time.time()), robust=True)


def _first_of_each(events: Sequence[OrderEvent], event_ids: Iterable[UUID]) -> list[OrderEvent]:
    first = {event.event_id: event for event in reversed(events)}
    return [first[event_id] for event_id in event_ids]
