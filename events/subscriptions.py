"""The registry: the topics of this project with their vocabularies, and the groups that handle their events.

Apps fill it. An app's `events.py` registers the topics that it publishes, its `subscriptions.py` the groups that it
runs; Django imports both modules of every installed app at the start.
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


class Event(inbox.Identified, Protocol):
    """A decoded event, as far as the plumbing needs to know it."""

    @property
    def timestamp(self) -> datetime:
        """When it happened, by the producer's clock."""


EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic and its vocabulary."""

    setting: str
    """Name of the setting that names the topic."""
    event_types: Collection[str]
    """Every type that its producers publish. A message of another type is a dead letter."""
    subject: str = ""
    """Member of an event's JSON object that tells what the event is about, an integer."""
    stream_prefix: str = ""
    """The stream of an event is this and its subject."""

    @property
    def name(self) -> str:
        return str(getattr(settings, self.setting))


class Receipts(NamedTuple):
    """Rows that say which events a group has handled, one row an event."""

    rows: QuerySet[Any]
    handled_at: str
    """Name of the column that has the time."""


@dataclass(frozen=True, kw_only=True)
class Subscription(Generic[EventT]):
    """A group of consumers and what it does with the events of a topic.

    The inbox remembers which events the group has handled, so that `handle` sees each event once. A subclass whose
    own rows have a unique event id may do without the inbox: it overrides `save`, `handled`, `receipts` and
    `receipts_of_row` together.
    """

    group: str
    topic: Topic
    decode: Callable[[bytes | None], EventT]
    """Makes an event of a record's value. Raises `events.troubles.Poison` where it is none."""
    handle: Callable[[Sequence[EventT]], object]
    """Gets new events, in the topic's order for each key, in a transaction. When that commits, they are handled."""
    event_types: Collection[str] | None = None
    """The types that the group wants; it passes over the topic's others. None: all of them."""

    @cached_property
    def wanted(self) -> frozenset[str]:
        return frozenset(self.topic.event_types if self.event_types is None else self.event_types)

    @cached_property
    def unwanted(self) -> frozenset[str]:
        """The types of the topic that the group passes over. A type that the topic does not have is not among them."""
        return frozenset(self.topic.event_types) - self.wanted

    def save(self, events: Sequence[EventT]) -> Collection[EventT]:
        """Handle those of `events` that are new, in the caller's transaction, and return these.

        Raises:
            EventIdConflict: an event has the id of another one that this group has handled.
        """
        new = inbox.claim(group=self.group, events=events)
        if new:
            self.handle(new)
        return new

    def handled(self, events: Iterable[inbox.Identified]) -> dict[UUID, datetime]:
        """Return, by event id, when this group handled each of `events`; those it has not handled are left out."""
        return inbox.handled(group=self.group, events=events)

    def receipts(self) -> Receipts:
        """Return everything that this group has handled."""
        return Receipts(inbox.entries(self.group), "handled_at")

    def receipts_of_row(self) -> QuerySet[Any]:
        """Return the receipts of the event in the outbox row that the outer query looks at."""
        return inbox.entries_of_row(self.group)


class UnknownGroup(Exception):
    """No app has registered a subscription for this group."""


_topics: list[Topic] = []
_subscriptions: dict[str, Subscription[Any]] = {}


def register_topic(topic: Topic) -> Topic:
    """Make `topic` known, and return it."""
    if topic not in _topics:
        _topics.append(topic)
    return topic


def register(*subscriptions: Subscription[Any]) -> None:
    """Make `subscriptions` known. Raises ImproperlyConfigured where a group has another one already."""
    for subscription in subscriptions:
        if _subscriptions.setdefault(subscription.group, subscription) is not subscription:
            raise ImproperlyConfigured(
                f"Two subscriptions have the group {subscription.group!r}: give one of them another name."
            )
        register_topic(subscription.topic)


def subscriptions(topic: str | None = None) -> list[Subscription[Any]]:
    """Return all subscriptions, by group, or those of one topic."""
    found = [one for one in _subscriptions.values() if topic in (None, one.topic.name)]
    return sorted(found, key=lambda one: one.group)


def subscription(group: str) -> Subscription[Any]:
    """Raises UnknownGroup."""
    try:
        return _subscriptions[group]
    except KeyError:
        known = ", ".join(sorted(_subscriptions)) or "none"
        raise UnknownGroup(f"There is no consumer group {group!r}. Registered groups: {known}.") from None


def topics() -> list[Topic]:
    return list(_topics)


def topic_named(name: str) -> Topic | None:
    """Return the registered topic of this name; None for a topic that no app has registered."""
    return next((topic for topic in _topics if topic.name == name), None)


def dead_letter_topic(topic: str) -> str:
    """Return the name of the topic that gets copies of `topic`'s dead letters."""
    return f"{topic}-dlt"
