"""Where an event is, on the pages of admin: each app shows its own rows, and only here are they known all together."""

from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone

from commerce.operations.handled import dead_letters
from commerce.operations.timeline import trace_events
from events.models import DeadLetter, OutboxEvent
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS
from orders.events import STREAM_PREFIX
from orders.models import Order

register = template.Library()


@register.filter
def moment(time: datetime) -> str:
    """For example `2025-01-30 19:15:30.123 KST`, in the reader's zone."""
    local = timezone.localtime(time)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03} {local.tzname()}"


@register.inclusion_tag("commerce/timeline.html")
def order_timeline(order: Order) -> dict[str, Any]:
    return {"events": trace_events(order), "group": NOTIFICATIONS.group}


@register.inclusion_tag("commerce/related.html")
def related(shown: OutboxEvent | DeadLetter | Notification) -> dict[str, Any]:
    """What else there is about the event that `shown` is about."""
    letter = shown.dead_letter if isinstance(shown, OutboxEvent) else None
    event_id = letter.event_id if letter else shown.event_id
    replays = shown.replays.all() if isinstance(shown, DeadLetter) else OutboxEvent.objects.none()
    about: dict[str, Any] = {"shown": shown, "group": NOTIFICATIONS.group}
    about["replays"] = replays.defer("key", "value", "headers").order_by("pk")
    if event_id is None:
        return about | {"letters": [letter] if letter else []}
    row = OutboxEvent.objects.filter(event_id=event_id).defer("key", "value", "headers").first()
    notification = Notification.objects.filter(event_id=event_id).first()
    return about | {
        "order": _order(row, notification),
        "row": row,
        "notification": notification,
        "letters": dead_letters().filter(event_id=event_id),
    }


def _order(row: OutboxEvent | None, notification: Notification | None) -> Order | None:
    """The order of the event, where this database has it."""
    if row and row.stream and row.stream.startswith(STREAM_PREFIX):
        return Order.objects.filter(pk=row.stream.removeprefix(STREAM_PREFIX)).first()
    return Order.objects.filter(pk=notification.order_id).first() if notification else None
