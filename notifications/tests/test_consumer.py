"""The consumer on a real broker: every record becomes a notification or a dead letter."""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from conftest import Topics
from events.consuming.consumer import EventConsumer
from events.kafka import Consumer, Record
from events.kafka.cluster import Viewer
from events.kafka.reading_ahead import ReadAhead
from events.models import DeadLetter, OutboxEvent
from events.outbox.relay import Relay
from notifications.models import Notification
from notifications.subscriptions import NotificationSubscription
from orders.events import OrderEvent, encode
from testkit.factories import OrderEventFactory, kafka_record
from testkit.kafka_client import produce, read_topic
from testkit.subscriptions import notifying, process
from testkit.waiting import wait_until


class Running:
    """A consumer that runs in a thread."""

    def __init__(self, subscription: NotificationSubscription) -> None:
        self.group = subscription.group
        self.topic = subscription.topic.name
        self.subscription = subscription
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        source = ReadAhead(Consumer(topic=self.topic, group=self.group, batch_size=500))
        try:
            EventConsumer(source=source, subscription=self.subscription, stopping=self._stop.is_set).run()
        finally:
            source.close()
            connection.close()

    def lag(self) -> int:
        viewer = Viewer(group=self.group)
        try:
            return sum(known.end - (known.committed or 0) for known in viewer.offsets(self.topic).values())
        finally:
            viewer.close()

    def caught_up(self) -> bool:
        return self.lag() == 0

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def consume(topics: Topics) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(kind: type[NotificationSubscription] = NotificationSubscription, group: str = "") -> Running:
        running.append(Running(notifying(kind, group=group or f"group-{uuid4().hex[:8]}")))
        return running[-1]

    yield start
    for one in running:
        one.stop()


Consume = Callable[..., Running]


@pytest.mark.django_db(transaction=True)
class TestOnTheBroker:
    def test_a_bare_message_of_any_producer_becomes_a_notification(self, consume: Consume, topics: Topics) -> None:
        consume()
        event = OrderEventFactory.build(order_id=987654321, user_id=5)
        produce(topics.order_events, encode(event))
        notification = wait_until(Notification.objects.first)
        assert (notification.event_id, notification.order_id) == (event.event_id, 987654321)

    def test_the_same_event_twice_is_one_notification(self, consume: Consume, topics: Topics) -> None:
        event = OrderEventFactory.build()
        for _ in range(2):
            produce(topics.order_events, encode(event), partition=0)
        running = consume()
        wait_until(running.caught_up)
        produce(topics.order_events, encode(event), partition=1)
        wait_until(running.caught_up)
        assert Notification.objects.count() == 1
        assert not DeadLetter.objects.exists()

    def test_poison_is_a_dead_letter_and_its_neighbours_are_saved(self, consume: Consume, topics: Topics) -> None:
        before, after = OrderEventFactory.build_batch(2)
        produce(topics.order_events, encode(before), partition=0)
        produce(topics.order_events, b"garbage", partition=0, key=b"k", headers=[("h", b"\xff")])
        produce(topics.order_events, encode(after), partition=0)
        running = consume()
        wait_until(running.caught_up)
        assert set(Notification.objects.values_list("event_id", flat=True)) == {before.event_id, after.event_id}
        letter = DeadLetter.objects.get()
        assert (letter.topic, letter.partition, letter.offset, letter.state) == (topics.order_events, 0, 1, "open")
        assert letter.group == running.group
        assert letter.error_class == "events.troubles.Poison"
        assert "Not an order event" in letter.error_message
        assert bytes(letter.value or b"") == b"garbage"

    def test_every_kind_of_poison_is_one_dead_letter_with_its_copy(self, consume: Consume, topics: Topics) -> None:
        valid = json.loads(encode(OrderEventFactory.build()))
        poison: list[tuple[bytes | None, bytes | None]] = [
            (b"k", None),
            (None, None),
            (None, b""),
            (None, b"not json"),
            (None, b"\xff\xfe"),
            (None, json.dumps({key: valid[key] for key in list(valid)[:-1]}).encode()),
            (None, json.dumps(valid | {"orderId": "1"}).encode()),
            (None, json.dumps(valid | {"orderId": 2**63}).encode()),
            (None, json.dumps(valid | {"eventType": "ORDER_LOST"}).encode()),
            (None, b"x" * 1024 * 1024),
        ]
        for key, value in poison:
            produce(topics.order_events, value, key=key, partition=0)
        produce(topics.order_events, json.dumps(valid).encode(), partition=0)
        running = consume()
        wait_until(running.caught_up)
        assert Notification.objects.count() == 1
        letters = DeadLetter.objects.order_by("offset")
        assert [letter.offset for letter in letters] == list(range(len(poison)))
        assert [None if letter.value is None else bytes(letter.value) for letter in letters] == [
            value for _, value in poison
        ]
        assert all(letter.error_message for letter in letters)
        relay = Relay(stopping=lambda: False, wait=time.sleep)
        assert relay.sweep(older_than=timedelta(0)) == (len(poison), None)
        relay.close()
        assert len(read_topic(topics.dead_letters)) == len(poison)

    @pytest.mark.parametrize("trouble", [OperationalError("gone"), InterfaceError("closed"), DatabaseError("lost")])
    def test_an_outage_of_the_database_is_retried_until_it_is_over(
        self, consume: Consume, topics: Topics, trouble: Exception
    ) -> None:
        attempts: list[int] = []

        class OutTwice(NotificationSubscription):
            def save(self, events: Sequence[OrderEvent]) -> Collection[OrderEvent]:
                attempts.append(len(events))
                new = super().save(events)
                if len(attempts) <= 2:
                    raise trouble
                return new

        event = OrderEventFactory.build()
        produce(topics.order_events, encode(event))
        running = consume(OutTwice)
        wait_until(running.caught_up)
        assert attempts == [1, 1, 1]
        assert Notification.objects.get().event_id == event.event_id
        assert not DeadLetter.objects.exists()

    def test_the_next_owner_continues_after_the_committed_offset(self, consume: Consume, topics: Topics) -> None:
        seen: list[OrderEvent] = []

        class Recording(NotificationSubscription):
            def save(self, events: Sequence[OrderEvent]) -> Collection[OrderEvent]:
                seen.extend(events)
                return events

        first, second = OrderEventFactory.build_batch(2)
        produce(topics.order_events, encode(first), partition=0)
        earlier = consume()
        wait_until(earlier.caught_up)
        earlier.stop()
        produce(topics.order_events, encode(second), partition=0)
        assert earlier.lag() == 1
        later = consume(Recording, group=earlier.group)
        wait_until(later.caught_up)
        assert [event.event_id for event in seen] == [second.event_id]


class RefusedByTheDatabase(NotificationSubscription):
    """A subscription for which the database rejects order 13, by a division by zero."""

    def save(self, events: Sequence[OrderEvent]) -> Collection[OrderEvent]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / (id - 13) FROM unnest(%s) AS id", [[event.order_id for event in events]])
        return super().save(events)


@pytest.mark.django_db
class TestBatches:
    """Tests that process batches without a broker."""

    def test_a_redelivered_batch_changes_nothing(self) -> None:
        records: list[Record] = [
            kafka_record(encode(OrderEventFactory.build()), offset=0),
            kafka_record(b"garbage", offset=1),
            kafka_record(encode(OrderEventFactory.build()), offset=2),
        ]
        for _ in range(2):
            process(records)
        assert Notification.objects.count() == 2
        assert DeadLetter.objects.count() == 1
        assert OutboxEvent.objects.count() == 1

    def test_another_message_at_its_position_is_another_letter(self) -> None:
        process([kafka_record(b"garbage", offset=1)])
        process([kafka_record(b"other garbage", offset=1)])
        process([kafka_record(b"garbage", offset=1, timestamp=99)])
        assert DeadLetter.objects.count() == 3

    def test_only_the_event_that_the_database_refuses_is_dead(self) -> None:
        events = [OrderEventFactory.build(order_id=order_id) for order_id in (11, 12, 13, 14, 15)]
        records = [kafka_record(encode(event), offset=offset) for offset, event in enumerate(events)]
        process(records, notifying(RefusedByTheDatabase))
        assert set(Notification.objects.values_list("order_id", flat=True)) == {11, 12, 14, 15}
        letter = DeadLetter.objects.get()
        assert (letter.offset, letter.event_id) == (2, events[2].event_id)
        assert letter.error_class == "django.db.utils.DataError"
