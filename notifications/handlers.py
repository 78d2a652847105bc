"""From order events to notifications: which text an event becomes, and how a batch is saved."""

import time
from collections.abc import Collection, Sequence

from django.db import transaction

from events.kafka import Record
from events.observing.metrics import count_consumed
from events.troubles import Poison
from notifications.models import Notification
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, OrderEvent, OrderEventType, decode

TEXTS: dict[OrderEventType, str] = {
    ORDER_CREATED: "주문이 생성되었습니다. 주문번호: {order_id}, 금액: {total_amount:.2f}원",
    ORDER_PAID: "결제가 완료되었습니다. 주문번호: {order_id}, 금액: {total_amount:.2f}원",
    ORDER_CANCELLED: "주문이 취소되었습니다. 주문번호: {order_id}, 금액: {total_amount:.2f}원",
}


class EventIdConflict(Poison):
    """An event has the id of another one: one of the two is forged, or a producer gave one id twice."""


def to_notification(event: OrderEvent) -> Notification:
    return Notification(
        user_id=event.user_id,
        order_id=event.order_id,
        event_id=event.event_id,
        type=event.event_type,
        message=TEXTS[event.event_type].format(order_id=event.order_id, total_amount=event.total_amount),
    )


class NotificationHandler:
    """Handler of order events for `events.consuming.consumer`."""

    def decode(self, record: Record) -> OrderEvent:
        return decode(record.value)

    def save(self, events: Sequence[OrderEvent]) -> None:
        """Save a notification of each event that has none yet: one INSERT, and a SELECT where events came again.

        Raises:
            EventIdConflict: an event has the id of one for another user, about another order, or of another type.
        """
        inserted = Notification.objects.insert_new([to_notification(event) for event in events])
        new = events
        if len(inserted) < len(events):
            first = {event.event_id: event for event in reversed(events)}
            new = [first[event_id] for event_id in inserted]
            _refuse_conflicts(set(events).difference(new))
        transaction.on_commit(lambda: count_consumed(events=events, new=new, saved_at=time.time()), robust=True)


def _refuse_conflicts(repeats: Collection[OrderEvent]) -> None:
    """Raise EventIdConflict where one of `repeats` is not the event whose notification stands under its id."""
    known = Notification.objects.filter(event_id__in=[event.event_id for event in repeats])
    told = {row[0]: row[1:] for row in known.values_list("event_id", "type", "order_id", "user_id")}
    for event in repeats:
        before, now = told[event.event_id], (event.event_type, event.order_id, event.user_id)
        if now != before:
            raise EventIdConflict(
                f"Event id {event.event_id} came first with {_what(*before)}, and now with {_what(*now)}. Find out who "
                "sent which: one of them is forged, or its producer gave one id to two events"
            )


def _what(event_type: str, order_id: int, user_id: int) -> str:
    return f"{event_type} of order {order_id} for user {user_id}"
