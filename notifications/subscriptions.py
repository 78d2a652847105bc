"""The subscription of the notifications' group, which turns each order event into one notification for its user."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db.models import (
    BigIntegerField,
    Case,
    CharField,
    F,
    Func,
    JSONField,
    OuterRef,
    QuerySet,
    TextField,
    Value,
    When,
)
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Concat

from events.inbox import Identified
from events.subscriptions import Receipts, Subscription, register
from events.troubles import EventIdConflict
from notifications.models import EmailTexts, NewNotification, Notification
from orders.events import (
    ORDER_CANCELLED,
    ORDER_CREATED,
    ORDER_EVENT_TYPES,
    ORDER_EVENTS,
    ORDER_PAID,
    STREAM_PREFIX,
    OrderEvent,
    OrderEventType,
    decode,
    stream_of,
)

SENTENCES: dict[OrderEventType, str] = {
    ORDER_CREATED: "주문이 생성되었습니다",
    ORDER_PAID: "결제가 완료되었습니다",
    ORDER_CANCELLED: "주문이 취소되었습니다",
}
"""The beginning of a notification's message, by the type of its event."""
EMAIL_SUBJECTS: dict[OrderEventType, str] = {
    event_type: f"[Commerce] {sentence}" for event_type, sentence in SENTENCES.items()
}


def email_texts() -> EmailTexts | None:
    """Return the texts of new e-mails; None if the settings turn e-mails off."""
    if not settings.EMAIL_ENABLED:
        return None
    return EmailTexts(
        subjects=EMAIL_SUBJECTS, order_link=f"{settings.SITE_URL}/api/orders/", max_age=settings.EMAIL_MAX_AGE
    )


def to_notification(event: OrderEvent) -> NewNotification:
    sentence = SENTENCES[event.event_type]
    return NewNotification(
        user_id=event.user_id,
        order_id=event.order_id,
        event_id=event.event_id,
        type=event.event_type,
        message=f"{sentence}. 주문번호: {event.order_id}, 금액: {event.total_amount:.2f}원",
        occurred_at=event.timestamp,
    )


def notify(events: Sequence[OrderEvent]) -> Collection[OrderEvent]:
    """Save a notification for each event without one, with an e-mail if the event is recent and the user wants e-mails.

    Return the events that were new. This takes one INSERT, and one SELECT if some events are repeats.

    Raises:
        EventIdConflict: an event has the id of an earlier event with another user, order or type.
    """
    inserted = Notification.objects.insert_new([to_notification(event) for event in events], emails=email_texts())
    if len(inserted) == len(events):
        return events
    first = {event.event_id: event for event in reversed(events)}
    new = [first[event_id] for event_id in inserted]
    _refuse_conflicts(set(events).difference(new))
    return new


def _refuse_conflicts(repeats: Collection[OrderEvent]) -> None:
    """Raise EventIdConflict if the saved notification of one of `repeats` has another user, order or type."""
    known = Notification.objects.filter(event_id__in=[event.event_id for event in repeats])
    saved = {row[0]: row[1:] for row in known.values_list("event_id", "type", "order_id", "user_id")}
    for event in repeats:
        before, now = saved[event.event_id], (event.event_type, event.order_id, event.user_id)
        if now != before:
            raise EventIdConflict(event.event_id, before=_describe(*before), now=_describe(*now))


def _describe(event_type: str, order_id: int, user_id: int) -> str:
    return f"{event_type} of order {order_id} for user {user_id}"


@dataclass(frozen=True, kw_only=True)
class NotificationSubscription(Subscription[OrderEvent]):
    """A subscription without an inbox, because the event id of a notification is unique."""

    def save(self, events: Sequence[OrderEvent]) -> Collection[OrderEvent]:
        return notify(events)

    def handled(self, events: Iterable[Identified]) -> dict[UUID, datetime]:
        wanted = {event.event_id: (event.event_type, event.stream, event.owner) for event in events}
        return {
            row.event_id: row.created_at
            for row in Notification.objects.filter(event_id__in=wanted)
            if (row.type, stream_of(row.order_id), row.user_id) == wanted[row.event_id]
        }

    def receipts(self) -> Receipts:
        return Receipts(Notification.objects.all(), "created_at")

    def receipts_of_row(self) -> QuerySet[Notification]:
        """Return the notification of an outbox row's event, as a subquery for a query of outbox rows.

        The notification must have the event id, type, order and user of the row. The event id alone proves nothing,
        because any producer on the topic can send any id.
        """
        of_row = Notification.objects.alias(stream=Concat(Value(STREAM_PREFIX), Cast(F("order_id"), CharField())))
        return of_row.filter(
            event_id=OuterRef("event_id"),
            type=OuterRef("event_type"),
            stream=OuterRef("stream"),
            user_id=_user_of_row(),
        )


def _user_of_row() -> Case:
    """Return an SQL expression for the `userId` in the value of the outer query's outbox row."""
    text = Func(OuterRef("value"), Value("UTF8"), function="convert_from", output_field=TextField())
    user = KeyTextTransform("userId", Cast(text, JSONField()))
    is_order_event = When(type__in=ORDER_EVENT_TYPES, then=Cast(user, BigIntegerField()))
    return Case(is_order_event, output_field=BigIntegerField())


NOTIFICATIONS = NotificationSubscription(
    group=settings.NOTIFICATION_CONSUMER_GROUP,
    topic=ORDER_EVENTS,
    decode=decode,
    handle=notify,
    measures_latency=True,
)
register(NOTIFICATIONS)
