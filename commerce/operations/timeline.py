"""The current state of each event of an order: committed, on Kafka, handled by each group, or a dead letter."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from commerce.operations.outcomes import dead_letters
from events.inbox import Identity
from events.models import DeadLetter, OutboxEvent
from events.subscriptions import subscriptions
from events.views import FreedAtOnce
from events.wire.timestamps import rfc3339
from notifications.models import EmailDelivery, Notification
from notifications.subscriptions import NOTIFICATIONS
from orders.events import ORDER_EVENTS
from orders.history import stored_rows
from orders.models import Order, UnknownHistory


class GroupProgress(NamedTuple):
    """What one consumer group has done with an event: handled it, ignored it, or dead-lettered it."""

    group: str
    wants: bool
    """Whether the group handles events of this type. It is True for a group that is not registered."""
    handled_at: datetime | None
    letters: list[DeadLetter]

    @property
    def is_dead(self) -> bool:
        return self.handled_at is None and any(letter.state == DeadLetter.State.OPEN for letter in self.letters)


class EventTrace(NamedTuple):
    """All that the database contains about one event of an order."""

    order: Order
    identity: Identity
    sequence: int
    row: OutboxEvent | None
    """The event's row of the outbox or, after it was moved, of the history; None if it was discarded or lost."""
    notification: Notification | None
    groups: list[GroupProgress]
    """The progress of every registered group, and of other groups with dead letters of the event."""

    @property
    def timestamp(self) -> datetime | None:
        """Return the event's time from its row in the outbox or the history.

        Without a row, return the time of the order's creation for the first event, and None for other events.
        """
        if self.row:
            return self.row.created_at
        return self.order.created_at if self.sequence == 1 else None

    @property
    def letters(self) -> list[DeadLetter]:
        return [letter for progress in self.groups for letter in progress.letters]

    @property
    def other_groups(self) -> list[GroupProgress]:
        """Return the progress of all groups except notifications, whose entries admin shows separately."""
        return [progress for progress in self.groups if progress.group != NOTIFICATIONS.group]

    @property
    def state(self) -> str:
        """Return the event's state for the API, such as "NOTIFIED".

        Of the dead letters, only those of the group of notifications count.
        """
        if self.notification:
            return "NOTIFIED"
        if any(progress.is_dead for progress in self.groups if progress.group == NOTIFICATIONS.group):
            return "DEAD"
        return "PENDING" if self.row and not self.row.published_at else "PUBLISHED"

    @property
    def is_known(self) -> bool:
        return bool(self.row or self.letters or any(progress.handled_at for progress in self.groups))


class OrderEventsView(FreedAtOnce):
    """Endpoint for the events of one of the caller's orders, oldest first."""

    def get(self, request: Request, pk: int) -> Response:
        order = Order.objects.filter(pk=pk, user=request.user.pk).first()
        if order is None:
            raise NotFound
        return Response(timeline(order))


def timeline(order: Order) -> list[dict[str, Any]]:
    """Return one entry per known event of `order` (see `trace_events`), by sequence. Unknown values are None."""
    return [_entry(event) for event in trace_events(order)]


def trace_events(order: Order) -> list[EventTrace]:
    """Return an `EventTrace` of each known event of `order`, by sequence.

    An event is known by its row in the outbox or history, by its dead letters, or by a row that proves that a group has
    handled it. An event with none of these is left out until `reconcile_events` has recorded it again.
    """
    rows = {row.event_id: row for row in stored_rows(column="stream", values=[order.stream])}
    types: dict[UUID, tuple[int, str]] = {}
    with suppress(UnknownHistory):  # The order's events are then known only from their rows.
        types |= {order.event_id(n): (n, event_type) for n, event_type in enumerate(order.event_types, start=1)}
    types |= {event_id: (row.sequence or 0, row.event_type) for event_id, row in rows.items()}
    identities = {
        Identity(event_id, event_type, order.stream, order.user_id): sequence
        for event_id, (sequence, event_type) in types.items()
    }
    progress = _progress_of_groups(order, identities)
    saved = Notification.objects.filter(event_id__in=types, order_id=order.pk, user_id=order.user_id)
    notifications = {(one.event_id, one.type): one for one in saved}
    traces = [
        EventTrace(
            order=order,
            identity=identity,
            sequence=sequence,
            row=rows.get(identity.event_id),
            notification=notifications.get((identity.event_id, identity.event_type)),
            groups=progress[identity],
        )
        for identity, sequence in sorted(identities.items(), key=lambda item: item[1])
    ]
    return [trace for trace in traces if trace.is_known]


def emails_of(notifications: Iterable[Notification]) -> dict[int, EmailDelivery]:
    """Return the e-mails of the notifications, without their contents, by the notifications' ids."""
    emails = EmailDelivery.objects.filter(pk__in=[one.pk for one in notifications])
    return {email.pk: email for email in emails.defer("text", "content")}


def _progress_of_groups(order: Order, identities: dict[Identity, int]) -> dict[Identity, list[GroupProgress]]:
    letters = defaultdict(list)
    for letter in dead_letters().filter(event_id__in=[one.event_id for one in identities], subject_id=order.pk):
        letters[letter.event_id, letter.event_type, letter.group].append(letter)
    groups = subscriptions(ORDER_EVENTS.name)
    handled = {one.group: one.handled(identities) for one in groups}
    wanted = {one.group: one.wanted for one in groups}
    others = sorted({group for _, _, group in letters} - set(wanted))
    return {
        one: [
            GroupProgress(
                group=group,
                wants=group not in wanted or one.event_type in wanted[group],
                handled_at=handled.get(group, {}).get(one.event_id),
                letters=letters[one.event_id, one.event_type, group],
            )
            for group in [*wanted, *others]
        ]
        for one in identities
    }


def _entry(event: EventTrace) -> dict[str, Any]:
    row, notification, timestamp = event.row, event.notification, event.timestamp
    return {
        "eventId": str(event.identity.event_id),
        "eventType": event.identity.event_type,
        "sequence": event.sequence,
        "timestamp": timestamp and rfc3339(timestamp),
        "state": event.state,
        "publishedAt": row and row.published_at and rfc3339(row.published_at),
        "topic": row.topic if row else ORDER_EVENTS.name,
        "partition": row and row.published_partition,
        "offset": row and row.published_offset,
        "notificationId": notification and notification.pk,
    }
