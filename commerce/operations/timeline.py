"""Where each event of an order is now: committed, on Kafka, a notification, or a dead letter."""

from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from events.models import DeadLetter, OutboxEvent
from events.timestamps import rfc3339
from events.views import FreedAtOnce
from notifications.models import Notification
from orders.models import Order, UnknownHistory


class Traces(NamedTuple):
    """What is left of one event of an order."""

    order: Order
    event_id: UUID
    sequence: int
    event_type: str
    row: OutboxEvent | None
    """None where it was pruned."""
    notification: Notification | None
    letters: list[DeadLetter]

    @property
    def timestamp(self) -> datetime | None:
        """Of a pruned event only that of the first is known, which is the order's own."""
        if self.row:
            return self.row.created_at
        return self.order.created_at if self.sequence == 1 else None

    @property
    def state(self) -> str:
        if self.notification:
            return "NOTIFIED"
        if any(letter.state == DeadLetter.State.OPEN for letter in self.letters):
            return "DEAD"
        return "PENDING" if self.row and not self.row.published_at else "PUBLISHED"


class OrderEventsView(FreedAtOnce):
    """The events of one of the caller's orders, oldest first."""

    def get(self, request: Request, pk: int) -> Response:
        order = Order.objects.filter(pk=pk, user=request.user.pk).first()
        if order is None:
            raise NotFound
        return Response(timeline(order))


def timeline(order: Order) -> list[dict[str, Any]]:
    """One entry per event, by sequence; what is not known, yet or any more, is None."""
    return [_entry(event) for event in traces(order)]


def traces(order: Order) -> list[Traces]:
    """What is left of each event, by sequence.

    An event whose outbox row was pruned is told of by its notification or dead letter. One that got lost, so that
    nothing tells of it, is left out until `reconcile_events` has recorded it again.
    """
    rows = {row.event_id: row for row in OutboxEvent.objects.filter(stream=order.stream)}
    events: dict[UUID, tuple[int, str]] = {}
    with suppress(UnknownHistory):  # Then only its rows tell of an order's events.
        events |= {order.event_id(n): (n, event_type) for n, event_type in enumerate(order.event_types, start=1)}
    events |= {event_id: (row.sequence or 0, row.event_type) for event_id, row in rows.items()}
    told = Notification.objects.filter(event_id__in=events, order_id=order.pk, user_id=order.user_id)
    notifications = {(one.event_id, one.type): one for one in told}
    letters = defaultdict(list)
    for letter in dead_letters().filter(event_id__in=events, subject_id=order.pk):
        letters[letter.event_id, letter.event_type].append(letter)
    found = [
        Traces(
            order=order,
            event_id=event_id,
            sequence=sequence,
            event_type=event_type,
            row=rows.get(event_id),
            notification=notifications.get((event_id, event_type)),
            letters=letters[event_id, event_type],
        )
        for event_id, (sequence, event_type) in sorted(events.items(), key=itemgetter(1))
    ]
    return [one for one in found if one.row or one.notification or one.letters]


def dead_letters() -> QuerySet[DeadLetter]:
    """Without their messages, which may be a mebibyte each."""
    return DeadLetter.objects.defer("key", "value", "headers", "error_message", "stacktrace").order_by("pk")


def _entry(event: Traces) -> dict[str, Any]:
    row, notification, timestamp = event.row, event.notification, event.timestamp
    return {
        "eventId": str(event.event_id),
        "eventType": event.event_type,
        "sequence": event.sequence,
        "timestamp": timestamp and rfc3339(timestamp),
        "state": event.state,
        "publishedAt": row and row.published_at and rfc3339(row.published_at),
        "topic": row.topic if row else settings.ORDER_EVENTS_TOPIC,
        "partition": row and row.published_partition,
        "offset": row and row.published_offset,
        "notificationId": notification and notification.pk,
    }
