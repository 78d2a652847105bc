"""Read from the database how far the events of given orders have come, and whether any was lost or doubled."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings

from commerce.operations.outcomes import OrderEventName, events_of, letters_of, notifications_of
from events.models import DeadLetter
from events.wire.timestamps import rfc3339
from notifications.models import Notification
from orders.history import stored_rows
from orders.models import Order, UnknownHistory


class Publication(NamedTuple):
    """The values of an event's row in the outbox or the history."""

    stream: str
    sequence: int
    event_type: str
    recorded_at: datetime
    """Time at which the event was recorded. The database's clock gives this time and `published_at`."""
    published_at: datetime | None
    path: str | None
    partition: int | None
    offset: int | None


class Journey(NamedTuple):
    """One event of an order, and how far it has come on its way to a notification."""

    order_id: int
    sequence: int
    publication: Publication | None
    """The event's row in the outbox or the history; None if it has none."""
    notified_at: datetime | None
    is_dead: bool

    def is_lost(self, committed: Mapping[int, int]) -> bool:
        """Return whether the event was lost, so that it becomes no notification unless it is sent again.

        A lost event has neither a notification nor an open or dismissed dead letter. Its row is missing from both the
        outbox and `OrderHistory`, or the group of notifications has read past its offset.

        `committed` has the group's committed offset by partition. The caller must read the offsets before it reads the
        database, because the consumer commits an offset after it has saved the effects of all records before it.
        """
        if self.notified_at or self.is_dead:
            return False
        if self.publication is None:
            return True
        partition, offset = self.publication.partition, self.publication.offset
        return offset is not None and partition is not None and committed.get(partition, 0) > offset


def follow(order_ids: Sequence[int], *, user_id: int) -> list[Journey]:
    """Return every event of those orders that belong to the user, sorted by order and sequence.

    If another program has changed an order's row, the order's events cannot be derived from it. This function then
    takes them from the events' own rows.
    """
    orders = list(Order.objects.filter(pk__in=order_ids, user=user_id))
    publications = _publications([order.stream for order in orders])
    events: dict[OrderEventName, int] = {}
    for order in orders:
        try:
            events |= events_of(order)
        except UnknownHistory:
            events |= {
                OrderEventName(event_id, order.pk, row.event_type): row.sequence
                for event_id, row in publications.items()
                if row.stream == order.stream
            }
    notified = notifications_of(events, user_ids={order.pk: user_id for order in orders})
    letters = letters_of(events, group=settings.NOTIFICATION_CONSUMER_GROUP)
    return sorted(
        Journey(
            order_id=event.order_id,
            sequence=number,
            publication=publications.get(event.event_id),
            notified_at=notified[event].created_at if event in notified else None,
            is_dead=any(letter.state != DeadLetter.State.REPLAYED for letter in letters.get(event, [])),
        )
        for event, number in events.items()
    )


def _publications(streams: Sequence[str]) -> dict[UUID, Publication]:
    return {
        row.event_id: Publication(
            stream=row.stream or "",
            sequence=row.sequence or 0,
            event_type=row.event_type,
            recorded_at=row.recorded_at,
            published_at=row.published_at,
            path=row.published_path,
            partition=row.published_partition,
            offset=row.published_offset,
        )
        for row in stored_rows(column="stream", values=streams)
    }


def count(
    journeys: Sequence[Journey], order_ids: Sequence[int], committed: Mapping[int, int], *, user_id: int
) -> dict[str, int]:
    """Return the numbers that the start page shows, such as those of pending, published and lost events, by name.

    `committed` has the committed offset of the notifications' group by partition. The caller reads it before the
    journeys, as `Journey.is_lost` requires. Only notifications of `user_id` are counted. An order of `order_ids`
    without a journey also counts as one lost event, for example an order that is not in the database.
    """
    found = {journey.order_id for journey in journeys}
    notifications = Notification.objects.filter(order_id__in=found, user_id=user_id)
    copies = Counter(notifications.values_list("order_id", "type"))
    lost = sum(one.is_lost(committed) for one in journeys)
    finished = sum(1 for one in journeys if one.notified_at or one.is_dead) + lost
    published = sum(1 for one in journeys if one.publication and one.publication.published_at)
    pending = sum(1 for one in journeys if one.publication and not one.publication.published_at)
    return {
        "orders": len(found),
        "pending": pending,
        "published": published,
        "notifications": sum(copies.values()),
        "doubled": sum(number - 1 for number in copies.values()),
        "underWay": len(journeys) - finished,
        "dead": sum(one.is_dead for one in journeys),
        "lost": len(set(order_ids) - found) + lost,
    }


def as_json(journey: Journey) -> dict[str, Any]:
    """Return a journey as JSON values. Times are RFC 3339 with milliseconds, or None."""
    publication = journey.publication
    published_at = publication and publication.published_at
    return {
        "orderId": journey.order_id,
        "sequence": journey.sequence,
        "recordedAt": publication and rfc3339(publication.recorded_at),
        "publishedAt": published_at and rfc3339(published_at),
        "path": publication and publication.path,
        "partition": publication and publication.partition,
        "offset": publication and publication.offset,
        "notifiedAt": journey.notified_at and rfc3339(journey.notified_at),
        "isDead": journey.is_dead,
    }
