"""Which notifications and dead letters tell of an order's event: those of its id, its order and its type.

The id alone proves nothing: any program that writes to the topic may put any id into its messages. Dead letters count
for the consumer group that made them, because each group handles every event itself.
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
    """What a notification or a dead letter has to name in order to tell of an event."""

    event_id: UUID
    order_id: int
    event_type: str


def events_of(order: Order) -> dict[OrderEventName, int]:
    """Return the order's events, each with its sequence."""
    numbered = enumerate(order.event_types, start=1)
    return {OrderEventName(order.event_id(number), order.pk, event_type): number for number, event_type in numbered}


def notifications_of(
    events: Collection[OrderEventName], *, user_ids: Mapping[int, int]
) -> dict[OrderEventName, Notification]:
    """Return the notification of each event that has one for the user of its order; `user_ids` is by order id."""
    told = {}
    for one in Notification.objects.filter(event_id__in={event.event_id for event in events}):
        named = OrderEventName(one.event_id, one.order_id, one.type)
        if named in events and user_ids[one.order_id] == one.user_id:
            told[named] = one
    return told


def letters_of(
    events: Collection[OrderEventName], *, group: str | None = None
) -> dict[OrderEventName, list[DeadLetter]]:
    """Return the letters, open or closed, of each event that has some: those of `group`, or of every group."""
    known: dict[tuple[Any, ...], OrderEventName] = {tuple(event): event for event in events}
    of_group = {} if group is None else {"group": group}
    told = defaultdict(list)
    for letter in dead_letters().filter(event_id__in={event.event_id for event in events}, **of_group):
        if event := known.get((letter.event_id, letter.subject_id, letter.event_type)):
            told[event].append(letter)
    return dict(told)


def dead_letters() -> QuerySet[DeadLetter]:
    """Return all letters, oldest first, without their messages, which may be a mebibyte each."""
    return DeadLetter.objects.defer("key", "value", "headers", "error_message", "stacktrace").order_by("pk")
