"""Find the notifications and dead letters of order events, by event id, order and event type.

The id alone proves nothing, because any producer on the topic can send any id. A dead letter belongs to one consumer
group, because each group handles every event itself.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from events.models import DeadLetter
from notifications.models import Notification
from orders.models import Order


class OrderEventName(NamedTuple):
    """The identity of an order event. A notification or dead letter of the event has the same three values."""

    event_id: UUID
    order_id: int
    event_type: str


def events_of(order: Order) -> dict[OrderEventName, int]:
    """Return the sequence number of each of the order's events, by event.

    Raise UnknownHistory if no known changes lead to the order's status and its number of events.
    """
    numbered = enumerate(order.event_types, start=1)
    return {OrderEventName(order.event_id(number), order.pk, event_type): number for number, event_type in numbered}


def notifications_of(
    events: Collection[OrderEventName], *, user_ids: Mapping[int, int]
) -> dict[OrderEventName, Notification]:
    """Return the notifications of `events` by event. A notification for a user other than the order's is left out.

    `user_ids` has the users by order id.
    """
    found = {}
    for one in Notification.objects.filter(event_id__in={event.event_id for event in events}):
        named = OrderEventName(one.event_id, one.order_id, one.type)
        if named in events and user_ids[one.order_id] == one.user_id:
            found[named] = one
    return found


def letters_of(
    events: Collection[OrderEventName], *, group: str | None = None
) -> dict[OrderEventName, list[DeadLetter]]:
    """Return the open and closed dead letters of `events` by event, from `group` or by default from every group."""
    known: dict[tuple[Any, ...], OrderEventName] = {tuple(event): event for event in events}
    of_group = {} if group is None else {"group": group}
    found = defaultdict(list)
    for letter in dead_letters().filter(event_id__in={event.event_id for event in events}, **of_group):
        if event := known.get((letter.event_id, letter.subject_id, letter.event_type)):
            found[event].append(letter)
    return dict(found)


def dead_letters() -> QuerySet[DeadLetter]:
    """Return all dead letters, oldest first. Their messages, of up to 2 MiB each, are deferred."""
    return DeadLetter.objects.defer("key", "value", "headers", "error_message", "stacktrace").order_by("pk")
