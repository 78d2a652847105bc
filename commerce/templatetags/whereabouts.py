"""Template tags that show in admin where an order or event is.

They show its timeline, its fulfilment, the attempts at a dead letter, and links to the rows of other apps about it.
"""

from typing import Any
from uuid import UUID

from django import template

from commerce.operations.outcomes import dead_letters
from commerce.operations.timeline import emails_of, trace_events
from events.consuming.attempts import Attempt, attempts_at
from events.consuming.dead_letters import subject_named_by
from events.models import DeadLetter, OutboxEvent
from fulfilment.models import Fulfilment
from notifications.models import EmailDelivery, Notification
from notifications.subscriptions import NOTIFICATIONS
from orders.events import ORDER_EVENTS, STREAM_PREFIX
from orders.history import stored_rows
from orders.models import Order, OrderHistory

register = template.Library()

Shown = OutboxEvent | OrderHistory | DeadLetter | Notification | EmailDelivery


@register.inclusion_tag("commerce/timeline.html")
def order_timeline(order: Order) -> dict[str, Any]:
    events = trace_events(order)
    attempts = attempts_at(letter for event in events for letter in event.letters)
    emails = emails_of(event.notification for event in events if event.notification)
    return {"events": events, "group": NOTIFICATIONS.group, "attempts": attempts, "emails": emails}


@register.inclusion_tag("commerce/fulfilment.html")
def order_fulfilment(order: Order) -> dict[str, Any]:
    fulfilment = Fulfilment.objects.filter(pk=order.pk).prefetch_related("step_rows").first()
    return {"fulfilment": fulfilment}


@register.inclusion_tag("commerce/attempts.html")
def letter_attempts(letter: DeadLetter) -> dict[str, Any]:
    return {"letter": letter, "attempts": attempts_at([letter]).get(letter.pk, [])}


@register.filter
def of_letter(attempts: dict[int, list[Attempt]], letter: DeadLetter) -> list[Attempt]:
    return attempts.get(letter.pk, [])


@register.filter
def of_notification(emails: dict[int, EmailDelivery], notification: Notification) -> EmailDelivery | None:
    return emails.get(notification.pk)


@register.inclusion_tag("commerce/related.html")
def related(shown: Shown) -> dict[str, Any]:
    """Return the template's context: the rows about the event of `shown`.

    These are the outbox row, the order, the notification, the e-mail and the dead letters. If `shown` is a dead letter,
    the context also has its replays and the order that its message names.
    """
    letter = shown.dead_letter if isinstance(shown, OutboxEvent) else None
    event_id = letter.event_id if letter else _event_id(shown)
    replays = shown.replays.all() if isinstance(shown, DeadLetter) else OutboxEvent.objects.none()
    named_order = _named_order(shown) if isinstance(shown, DeadLetter) else None
    context: dict[str, Any] = {"shown": shown, "group": NOTIFICATIONS.group, "named_order": named_order}
    context["replays"] = replays.defer("key", "value", "headers").order_by("pk")
    if event_id is None:
        return context | {"letters": [letter] if letter else []}
    row = next(iter(stored_rows(column="event_id", values=[event_id])), None)
    notification = Notification.objects.filter(event_id=event_id).first()
    order = _order(row, notification)
    return context | {
        "email": notification and emails_of([notification]).get(notification.pk),
        "order": order,
        "named_order": None if named_order == order else named_order,
        "row": row,
        "row_is_shown": row and isinstance(shown, OutboxEvent | OrderHistory) and row.pk == shown.pk,
        "notification": notification,
        "letters": dead_letters().filter(event_id=event_id),
    }


def _event_id(shown: Shown) -> UUID | None:
    return shown.notification.event_id if isinstance(shown, EmailDelivery) else shown.event_id


def _named_order(letter: DeadLetter) -> Order | None:
    """Return the order that the dead letter's message names; None if there is no such order.

    Use it only for a link. Any program can write a message that names any order.
    """
    if letter.topic != ORDER_EVENTS.name or (order_id := subject_named_by(letter)) is None:
        return None
    return Order.objects.filter(pk=order_id).first()


def _order(row: OutboxEvent | None, notification: Notification | None) -> Order | None:
    """Return the order of the event with this outbox row and notification; None if this database does not have it."""
    if row and row.stream and row.stream.startswith(STREAM_PREFIX):
        return Order.objects.filter(pk=row.stream.removeprefix(STREAM_PREFIX)).first()
    return Order.objects.filter(pk=notification.order_id).first() if notification else None
