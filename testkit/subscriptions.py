"""Subscriptions and consumer groups for tests of `events`."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from commerce.operations.reconcile import Missing, Reading, search
from events.consuming.consumer import DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS
from events.consuming.processing import Processor, Progress
from events.kafka import Consumer, Record
from events.subscriptions import Subscription, Topic
from events.wire.timestamps import now
from notifications.subscriptions import NOTIFICATIONS, NotificationSubscription
from testkit.waiting import wait_until

Notifying = TypeVar("Notifying", bound=NotificationSubscription)


def notifying(kind: type[Notifying], *, group: str = "group") -> Notifying:
    """Return an instance of `kind` for the group `group`, with the topic, `decode` and `handle` of `NOTIFICATIONS`.

    Unlike `NOTIFICATIONS`, it does not measure latency.
    """
    return kind(group=group, topic=NOTIFICATIONS.topic, decode=NOTIFICATIONS.decode, handle=NOTIFICATIONS.handle)


def member_of(group: str) -> NotificationSubscription:
    """Return a copy of the notifications' subscription for the consumer group `group`."""
    return replace(NOTIFICATIONS, group=group)


def process(
    records: Sequence[Record],
    subscription: Subscription[Any] | None = None,
    *,
    limit: int = DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS,
) -> Progress:
    """Process `records` as a consumer does, by default for the notifications' subscription in a group named "group"."""
    wanted = subscription or replace(NOTIFICATIONS, group="group")
    return Processor(wanted, max_consecutive_dead_letters=limit).process(records)


class Row(NamedTuple):
    """An event of which only the record's value matters. Its other properties are the same for all."""

    value: bytes | None
    event_id: UUID = UUID(int=0)
    event_type: str = "ROW"
    timestamp: datetime = datetime(2025, 1, 30, tzinfo=UTC)
    stream: str = ""
    owner: int | None = None


class RowSubscription(Subscription[Row]):
    """A subscription without an inbox: `handle` gets repeated events, too."""

    def save(self, events: Sequence[Row]) -> Sequence[Row]:
        self.handle(events)
        return events


class RowHandler(Protocol):
    def decode(self, value: bytes | None) -> bytes | None: ...

    def save(self, values: Sequence[bytes | None]) -> None: ...


def rows(handler: RowHandler, *, group: str = "group", event_types: Sequence[str] = ()) -> RowSubscription:
    """Return a subscription to values that `handler` decodes and saves."""
    return RowSubscription(
        group=group,
        topic=Topic(setting="ORDER_EVENTS_TOPIC", event_types=("ROW", *event_types)),
        decode=lambda value: Row(handler.decode(value)),
        handle=lambda events: handler.save([event.value for event in events]),
    )


def read_and_commit(topic: str, group: str, count: int) -> None:
    """Join the group, read between one and `count` records, commit their offsets, and leave the group.

    Raises TimeoutError if no record comes within 60 s.
    """
    consumer = Consumer(topic=topic, group=group, batch_size=count)
    try:
        records = wait_until(lambda: consumer.poll(timeout=1))
        consumer.commit(records)
    finally:
        consumer.close()


def missing_of(group: Subscription[Any]) -> Missing:
    """Return what `reconcile_events` would find missing if `group` had nothing left to read."""
    steps = [*search([Reading(group, {}, now())])]
    return Missing(
        changes={change for step in steps for change in step.changes},
        events={event for step in steps for event in step.events},
        unknown=[sentence for step in steps for sentence in step.unknown],
    )
