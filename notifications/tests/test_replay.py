"""Replays of dead letters on a real broker: each event that the group can then decode becomes one notification."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from pytest_django import Settings

from conftest import Topics
from events.consuming.replay import open_letters, replay
from events.models import DeadLetter, OutboxEvent
from events.outbox.publisher import current_publisher
from events.troubles import Poison
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS, NotificationSubscription
from notifications.tests.test_consumer import Running
from orders.events import OrderEvent, encode
from testkit.factories import OrderEventFactory
from testkit.kafka_client import Message, produce, read_topic
from testkit.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

HARD = ("hard", b"\xff")


class FixableDecoder:
    """A decoder that rejects values with the JSON member `hard`, until a test sets `is_fixed`."""

    is_fixed = False

    def decode(self, value: bytes | None) -> OrderEvent:
        if b'"hard"' in (value or b"") and not self.is_fixed:
            raise Poison("too hard")
        return NOTIFICATIONS.decode(value)


@pytest.fixture
def handler() -> FixableDecoder:
    return FixableDecoder()


def subscribed(handler: FixableDecoder, group: str) -> NotificationSubscription:
    return replace(NOTIFICATIONS, group=group, decode=handler.decode)


@pytest.fixture
def consumer(topics: Topics, handler: FixableDecoder, settings: Settings) -> Iterator[Running]:
    """Run one consumer, and use the background publisher, which sends replays at once."""
    settings.EVENT_PUBLISHER = "events.outbox.publisher.BackgroundPublisher"
    running = Running(subscribed(handler, f"group-{uuid4().hex[:8]}"))
    yield running
    running.stop()
    current_publisher().close()


@pytest.fixture
def event() -> OrderEvent:
    return OrderEventFactory.build()


def hard(event: OrderEvent) -> bytes:
    return b'{"hard":true,' + encode(event).removeprefix(b"{")


def produce_hard(topics: Topics, event: OrderEvent) -> None:
    produce(topics.order_events, hard(event), key=b"7", headers=[HARD], partition=1)


def replay_all(consumer: Running) -> None:
    """Replay all open dead letters, and wait until the group has read the replays."""
    wait_until(lambda: DeadLetter.objects.exists() and consumer.caught_up())
    for letter_id in open_letters():
        assert not replay(letter_id=letter_id).refusal
    wait_until(lambda: not OutboxEvent.objects.pending().exists() and consumer.caught_up())


def replays(topics: Topics) -> list[Message]:
    return [message for message in read_topic(topics.order_events) if "dead-letter-id" in message.header]


def test_a_replay_that_works_notifies_once_and_closes_its_letter(
    consumer: Running, handler: FixableDecoder, topics: Topics, event: OrderEvent
) -> None:
    produce_hard(topics, event)
    wait_until(DeadLetter.objects.exists)
    assert not Notification.objects.exists()
    handler.is_fixed = True
    replay_all(consumer)
    assert Notification.objects.get().event_id == event.event_id
    letter = DeadLetter.objects.get()
    assert (letter.state, letter.replay_count) == ("replayed", 1)
    (message,) = replays(topics)
    assert (message.partition, message.key, message.value) == (1, b"7", hard(event))
    assert message.headers == [HARD, ("replay-count", b"1"), ("dead-letter-id", str(letter.pk).encode())]


def test_a_failed_replay_stays_one_open_letter_with_one_copy(
    consumer: Running, topics: Topics, event: OrderEvent
) -> None:
    produce_hard(topics, event)
    for _ in range(3):
        replay_all(consumer)
    letter = DeadLetter.objects.get()
    assert (letter.state, letter.replay_count) == ("open", 3)
    assert [message.header["replay-count"] for message in replays(topics)] == [b"1", b"2", b"3"]
    assert len(read_topic(topics.dead_letters)) == 1
    assert not Notification.objects.exists()


def test_a_replay_of_a_notified_event_notifies_no_second_time(
    consumer: Running, handler: FixableDecoder, topics: Topics, event: OrderEvent
) -> None:
    produce(topics.order_events, encode(event))
    produce_hard(topics, event)
    wait_until(lambda: Notification.objects.exists() and DeadLetter.objects.exists())
    handler.is_fixed = True
    replay_all(consumer)
    assert Notification.objects.count() == 1
    assert DeadLetter.objects.get().state == "replayed"


def test_a_letter_replayed_twice_is_one_notification(
    consumer: Running, handler: FixableDecoder, topics: Topics, event: OrderEvent
) -> None:
    produce_hard(topics, event)
    letter_id = wait_until(DeadLetter.objects.first).pk
    handler.is_fixed = True
    consumer.stop()
    for _ in range(2):
        assert not replay(letter_id=letter_id).refusal
    wait_until(lambda: not OutboxEvent.objects.pending().exists())
    later = Running(subscribed(handler, consumer.group))
    try:
        wait_until(later.caught_up)
    finally:
        later.stop()
    assert len(replays(topics)) == 2
    assert Notification.objects.count() == 1
    assert DeadLetter.objects.get().state == "replayed"
