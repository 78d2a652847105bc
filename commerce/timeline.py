"""Where each event of an order is now: committed, on Kafka, a notification, or a dead letter."""

from collections import defaultdict
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from events.models import DeadLetter, OutboxEvent
from events.timestamps import rfc3339
from notifications.models import Notification
from orders.models import Order


class Traces(NamedTuple):
    """What is left of one event of an order."""

    order: Order
    event_id: UUID
    sequence: int
    row: OutboxEvent | None
    """None where it was pruned."""
    notification: Notification | None
    letters: list[DeadLetter]


class OrderEventsView(APIView):
    """The events of one of the caller's orders, oldest first."""

    def get(self, request: Request, pk: int) -> Response:
        order = Order.objects.filter(pk=pk, user=request.user.pk).first()
        if order is None:
            raise NotFound
        return Response(timeline(order))


def timeline(order: Order) -> list[dict[str, Any]]:
    """One entry per event, by sequence; what is not known, yet or any more, is None.

    An event whose outbox row was pruned is told of by its notification or dead letter. One that got lost, so that
    nothing tells of it, has no entry until `reconcile_events` has recorded it again.
    """
    rows = {row.event_id: row for row in OutboxEvent.objects.filter(stream=order.stream)}
    sequences = {order.event_id(sequence): sequence for sequence in range(1, order.last_sequence + 1)}
    sequences |= {event_id: row.sequence or 0 for event_id, row in rows.items()}
    notifications = Notification.objects.in_bulk(list(sequences), field_name="event_id")
    letters = defaultdict(list)
    for letter in DeadLetter.objects.only("event_id", "event_type", "state").filter(event_id__in=sequences):
        letters[letter.event_id].append(letter)
    traces = [
        Traces(order, event_id, sequence, rows.get(event_id), notifications.get(event_id), letters[event_id])
        for event_id, sequence in sorted(sequences.items(), key=itemgetter(1))
    ]
    return [_entry(one) for one in traces if one.row or one.notification or one.letters]


def _entry(event: Traces) -> dict[str, Any]:
    row, notification = event.row, event.notification
    timestamp = _timestamp(event)
    return {
        "eventId": str(event.event_id),
        "eventType": _event_type(event),
        "sequence": event.sequence,
        "timestamp": timestamp and rfc3339(timestamp),
        "state": _state(event),
        "publishedAt": row and row.published_at and rfc3339(row.published_at),
        "topic": row.topic if row else settings.ORDER_EVENTS_TOPIC,
        "partition": row and row.published_partition,
        "offset": row and row.published_offset,
        "notificationId": notification and notification.pk,
    }


def _event_type(event: Traces) -> str | None:
    if event.row:
        return event.row.event_type
    if event.notification:
        return event.notification.type
    return event.letters[0].event_type or None


def _timestamp(event: Traces) -> datetime | None:
    """Of a pruned event only that of the first is known, which is the order's own."""
    if event.row:
        return event.row.created_at
    return event.order.created_at if event.sequence == 1 else None


def _state(event: Traces) -> str:
    if event.notification:
        return "NOTIFIED"
    if any(letter.state == DeadLetter.State.OPEN for letter in event.letters):
        return "DEAD"
    return "PENDING" if event.row and not event.row.published_at else "PUBLISHED"
