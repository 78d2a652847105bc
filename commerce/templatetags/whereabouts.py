"""Template tags for admin's links between an order, its events and their records. Each app shows only its own rows."""

from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone

from commerce.operations.outcomes import dead_letters
from commerce.operations.timeline import trace_events
from events.models import DeadLetter, OutboxEvent
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS
from orders.events import STREAM_PREFIX
from orders.models import Order

register = template.Library()


@register.filter
def moment(time: datetime) -> str:
    """Format a time in the user's time zone, for example `2025-01-30 19:15:30.123 KST`."""
    local = timezone.localtime(time)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03} {local.tzname()}"


@register.inclusion_tag("commerce/timeline.html")
def order_timeline(order: Order) -> dict[str, Any]:
    return {"events": trace_events(order), "group": NOTIFICATIONS.group}


@register.inclusion_tag("commerce/related.html")
def related(shown: OutboxEvent | DeadLetter | Notification) -> dict[str, Any]:
    """Return the other records about the event of `shown`."""
    letter = shown.dead_letter if isinstance(shown, OutboxEvent) else None
    event_id = letter.event_id if letter else shown.event_id
    replays = shown.replays.all() if isinstance(shown, DeadLetter) else OutboxEvent.objects.none()
    context: dict[str, Any] = {"shown": shown, "group": NOTIFICATIONS.group}
    context["replays"] = replays.defer("key", "value", "headers").order_by("pk")
    if event_id is None:
        return context | {"letters": [letter] if letter else []}
    row = OutboxEvent.objects.filter(event_id=event_id).defer("key", "value", "headers").first()
    notification = Notification.objects.filter(event_id=event_id).first()
    return context | {
        "order": _order(row, notification),
        "row": row,
        "notification": notification,
        "letters": dead_letters().filter(event_id=event_id),
    }


def _order(row: OutboxEvent | None, notification: Notification | None) -> Order | None:
    """Return the order of the event, or None if this database does not have it."""
    if row and row.stream and row.stream.startswith(STREAM_PREFIX):
        return Order.objects.filter(pk=row.stream.removeprefix(STREAM_PREFIX)).first()
    return Order.objects.filter(pk=notification.order_id).first() if notification else None
