"""How far the events of some orders have come, and whether one was lost or doubled. Read from the database."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings

from commerce.operations.handled import events_of, letters_of, notifications_of
from events.models import DeadLetter, OutboxEvent
from events.timestamps import rfc3339
from notifications.models import Notification
from orders.models import Order


class Publication(NamedTuple):
    """What the outbox says of one event."""

    recorded_at: datetime
    """By the database's clock, as `published_at` is."""
    published_at: datetime | None
    path: str | None
    partition: int | None
    offset: int | None


class Journey(NamedTuple):
    """One event of an order, and what is known of it."""

    order_id: int
    sequence: int
    publication: Publication | None
    """None where there is no outbox row."""
    notified_at: datetime | None
    is_dead: bool

    def is_lost(self, committed: Mapping[int, int]) -> bool:
        """Whether it will never become a notification: it was not recorded, or the group has passed it.

        `committed` has the group's next offset by partition. It must have been read before the database was: the
        consumer commits offsets after it has saved what lies below them.
        """
        if self.notified_at or self.is_dead:
            return False
        if self.publication is None:
            return True
        partition, offset = self.publication.partition, self.publication.offset
        return offset is not None and partition is not None and committed.get(partition, 0) > offset


def follow(order_ids: Sequence[int], *, user_id: int) -> list[Journey]:
    """Every event of those of the orders that are the user's, by order and sequence."""
    orders = list(Order.objects.filter(pk__in=order_ids, user=user_id))
    events = {event: number for order in orders for event, number in events_of(order).items()}
    publications = _publications([order.stream for order in orders])
    notified = notifications_of(events, user_ids={order.pk: user_id for order in orders})
    letters = letters_of(events, group=settings.NOTIFICATION_CONSUMER_GROUP)
    return sorted(
        Journey(
            order_id=event.order_id,
            sequence=number,
            publication=publications.get(event.event_id),
            notified_at=notified[event].created_at if event in notified else None,
            is_dead=any(letter.state == DeadLetter.State.OPEN for letter in letters.get(event, [])),
        )
        for event, number in events.items()
    )


def _publications(streams: Sequence[str]) -> dict[UUID, Publication]:
    columns = ("event_id", "recorded_at", "published_at", "published_path", "published_partition", "published_offset")
    rows = OutboxEvent.objects.filter(stream__in=streams).values_list(*columns)
    return {event_id: Publication(*rest) for event_id, *rest in rows}


def count(
    journeys: Sequence[Journey], order_ids: Sequence[int], committed: Mapping[int, int], *, user_id: int
) -> dict[str, int]:
    """Return the figures of the user's orders `order_ids`.

    An order that was answered with 201 and is not in the database is lost as well.
    """
    found = {journey.order_id for journey in journeys}
    notifications = Notification.objects.filter(order_id__in=found, user_id=user_id)
    told = Counter(notifications.values_list("order_id", "type"))
    lost = sum(one.is_lost(committed) for one in journeys)
    at_their_end = sum(1 for one in journeys if one.notified_at or one.is_dead) + lost
    published = sum(1 for one in journeys if one.publication and one.publication.published_at)
    pending = sum(1 for one in journeys if one.publication and not one.publication.published_at)
    return {
        "orders": len(found),
        "pending": pending,
        "published": published,
        "notifications": sum(told.values()),
        "doubled": sum(number - 1 for number in told.values()),
        "underWay": len(journeys) - at_their_end,
        "dead": sum(one.is_dead for one in journeys),
        "lost": len(set(order_ids) - found) + lost,
    }


def as_json(journey: Journey) -> dict[str, Any]:
    """Moments are RFC 3339 with milliseconds, null where they have not come yet."""
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
