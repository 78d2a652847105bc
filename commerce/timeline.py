"""Where each event of an order is now: committed, on Kafka, a notification, or a dead letter."""

from typing import Any
from uuid import UUID

from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from events.models import DeadLetter, OutboxEvent
from events.timestamps import rfc3339
from notifications.models import Notification
from orders.models import Order


class OrderEventsView(APIView):
    """The events of one of the caller's orders, oldest first."""

    def get(self, request: Request, pk: int) -> Response:
        order = Order.objects.filter(pk=pk, user=request.user.pk).first()
        if order is None:
            raise NotFound
        return Response(timeline(order))


def timeline(order: Order) -> list[dict[str, Any]]:
    """One entry per event, by sequence; what is not known yet is None."""
    rows = list(OutboxEvent.objects.filter(stream=order.stream).order_by("sequence"))
    event_ids = [row.event_id for row in rows]
    notification_ids: dict[UUID, int] = dict(
        Notification.objects.filter(event_id__in=event_ids).values_list("event_id", "id")
    )
    open_letters = DeadLetter.objects.filter(event_id__in=event_ids, state=DeadLetter.State.OPEN)
    dead = set(open_letters.values_list("event_id", flat=True))
    return [
        {
            "eventId": str(row.event_id),
            "eventType": row.event_type,
            "sequence": row.sequence,
            "timestamp": rfc3339(row.created_at),
            "state": _state(row, notified=row.event_id in notification_ids, dead=row.event_id in dead),
            "publishedAt": row.published_at and rfc3339(row.published_at),
            "topic": row.topic,
            "partition": row.published_partition,
            "offset": row.published_offset,
            "notificationId": notification_ids.get(row.event_id),
        }
        for row in rows
    ]


def _state(row: OutboxEvent, *, notified: bool, dead: bool) -> str:
    if notified:
        return "NOTIFIED"
    if dead:
        return "DEAD"
    return "PUBLISHED" if row.published_at else "PENDING"
