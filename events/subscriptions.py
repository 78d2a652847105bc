"""The registry of topics with their event types, and of the consumer groups that handle these events.

An app's `events.py` registers the topics that the app publishes, its `subscriptions.py` the groups that it runs. The
`events` app imports both modules of every installed app at the start.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet

from events import inbox
from events.wire import commands


class Event(inbox.Identified, Protocol):
    """The properties of a decoded event that the event pipeline needs."""

    @property
    def timestamp(self) -> datetime:
        """Time of the event by the producer's clock."""


EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic and the types of its events."""

    setting: str
    """Name of the setting that holds the topic's name."""
    event_types: Collection[str]
    """Every type that the topic's producers publish. A message of another type becomes a dead letter."""
    subject: str = ""
    """Name of the JSON member with the subject's id (an integer), such as `orderId`; by default `subjectId`. The event
    is about the subject."""
    stream_prefix: str = ""
    """Prefix of a stream's name, before the subject's id. A stream has the events about one subject, in sequence."""
    secret_members: Collection[str] = ()
    """Names of JSON members that admin hides. When a participant has done a command, it overwrites their values in the
    command's row with `events.wire.secret_members.HIDDEN`. So the participant's `decode` must accept this value."""

    @classmethod
    def of_process(cls, setting: str, *event_types: str, secret_members: Collection[str] = ()) -> "Topic":
        """Return a topic of commands or of replies (`events.wire.commands`).

        `setting` is the name of the Django setting that holds the topic's name. `event_types` are the types of its
        messages. `secret_members` are the names of JSON members that admin hides.
        """
        members = {"subject": commands.SUBJECT, "stream_prefix": commands.STREAM_PREFIX}
        return cls(setting=setting, event_types=event_types, secret_members=secret_members, **members)

    @property
    def name(self) -> str:
        """Name of the topic in Kafka."""
        return str(getattr(settings, self.setting))


class Receipts(NamedTuple):
    """Rows that prove which events a group has handled, one row per event."""

    rows: QuerySet[Any]
    handled_at: str
    """Name of the column of `rows` with the time at which the group handled the event."""


@dataclass(frozen=True, kw_only=True)
class Subscription(Generic[EventT]):
    """A consumer group and its handling of the events of one topic.

    The inbox records which events the group has handled, so that `handle` gets each event once. A subclass whose own
    rows have a unique event id can replace the inbox: it overrides `save`, `handled`, `receipts` and
    `receipts_of_row` together.
    """

    group: str
    topic: Topic
    decode: Callable[[bytes | None], EventT]
    """Decode a record's value into an event. It raises `events.troubles.Poison` for a value that is no event."""
    handle: Callable[[Sequence[EventT]], object]
    """Handle new events, which come in the topic's order for each key. It runs in the transaction of the batch. When
    this transaction commits, the events count as handled."""
    event_types: Collection[str] | None = None
    """The event types that the group handles; it ignores the topic's other types. None for all types."""
    measures_latency: bool = False
    """Whether the group's consumers observe `event_end_to_end_seconds`, which costs time in every batch."""

    @cached_property
    def wanted(self) -> frozenset[str]:
        """The event types that the group handles."""
        return frozenset(self.topic.event_types if self.event_types is None else self.event_types)

    @cached_property
    def unwanted(self) -> frozenset[str]:
        """The event types of the topic that the group ignores. Types that the topic does not have are not included."""
        return frozenset(self.topic.event_types) - self.wanted

    def decode_record(self, value: bytes | None, *, partition: int) -> EventT:
        """Decode the value of a record of `partition`.

        A subclass overrides this method if the rows that it saves depend on the partition.
        """
        return self.decode(value)

    def save(self, events: Sequence[EventT]) -> Collection[EventT]:
        """Handle the new ones among `events` in the caller's transaction, and return them.

        Raises:
            EventIdConflict: an event has the id of a different event that this group has handled.
        """
        new = inbox.claim(group=self.group, events=events)
        if new:
            self.handle(new)
        return new

    def handled(self, events: Iterable[inbox.Identified]) -> dict[UUID, datetime]:
        """Return the time at which this group handled each of `events`, by event id. Unhandled events are left out."""
        return inbox.handled(group=self.group, events=events)

    def receipts(self) -> Receipts:
        """Return the rows that prove which events this group has handled."""
        return Receipts(inbox.entries(self.group), "handled_at")

    def receipts_of_row(self) -> QuerySet[Any]:
        """Return a subquery for a query of outbox rows. It selects this group's receipt for the event of the outer row.

        A receipt is a row, such as an inbox entry, that proves that the group has handled the event.
        """
        return inbox.entries_of_row(self.group, stream_prefix=self.topic.stream_prefix)


class UnknownGroup(Exception):
    """No app has registered a subscription for the group."""


_topics: list[Topic] = []
_subscriptions: dict[str, Subscription[Any]] = {}


def register_topic(topic: Topic) -> Topic:
    """Add `topic` to the registry, and return it."""
    if topic not in _topics:
        _topics.append(topic)
    return topic


def register(*subscriptions: Subscription[Any]) -> None:
    """Add `subscriptions` and their topics to the registry.

    Raises ImproperlyConfigured if another subscription has the same group.
    """
    for subscription in subscriptions:
        if _subscriptions.setdefault(subscription.group, subscription) is not subscription:
            raise ImproperlyConfigured(
                f"Two subscriptions have the group {subscription.group!r}: give one of them another name."
            )
        register_topic(subscription.topic)


def subscriptions(topic: str | None = None) -> list[Subscription[Any]]:
    """Return the subscriptions of `topic`, or all subscriptions, ordered by group."""
    found = [one for one in _subscriptions.values() if topic in (None, one.topic.name)]
    return sorted(found, key=lambda one: one.group)


def subscription(group: str) -> Subscription[Any]:
    """Return the subscription of `group`. Raises UnknownGroup."""
    try:
        return _subscriptions[group]
    except KeyError:
        known = ", ".join(sorted(_subscriptions)) or "none"
        raise UnknownGroup(f"There is no consumer group {group!r}. Registered groups: {known}.") from None


def topics() -> list[Topic]:
    """Return all registered topics."""
    return list(_topics)


def topic_named(name: str) -> Topic | None:
    """Return the registered topic with this name; None if no app has registered it."""
    return next((topic for topic in _topics if topic.name == name), None)


def secret_members_of(topic: str) -> set[str]:
    """Return the names of the secret members of messages in this topic, which may be a topic of dead letters."""
    return {name for one in _topics if topic in (one.name, dead_letter_topic(one.name)) for name in one.secret_members}


def dead_letter_topic(topic: str) -> str:
    """Return the name of the topic that receives copies of `topic`'s dead letters."""
    return f"{topic}-dlt"
