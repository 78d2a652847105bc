"""A repeated event id with another user, order or type becomes a dead letter, and never a second notification."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from django.db import connection
from prometheus_client import REGISTRY
from pytest_django import Settings

from conftest import Topics
from events.consuming.processing import Progress
from events.consuming.replay import replay
from events.kafka import Record
from events.models import ConsumerGroup, DeadLetter, OutboxEvent
from events.outbox.publisher import current_publisher
from events.wire.timestamps import now
from notifications.models import Notification
from notifications.subscriptions import NotificationSubscription, notify
from notifications.tests.test_consumer import Running
from orders.events import ORDER_CANCELLED, ORDER_PAID, OrderEvent, encode
from testkit.factories import OrderEventFactory, kafka_record
from testkit.kafka_client import produce
from testkit.subscriptions import notifying, process
from testkit.waiting import a_lock_is_awaited, wait_until

OTHERS: dict[str, dict[str, Any]] = {
    "user": {"user_id": 99},
    "order": {"order_id": 987654321},
    "type": {"event_type": ORDER_CANCELLED},
    "all": {"user_id": 99, "order_id": 987654321, "event_type": ORDER_CANCELLED},
}
OTHER = pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
REPEATS: dict[str, dict[str, Any]] = {
    "the same": {},
    "later": {"timestamp": now()},
    "another amount": {"total_amount": Decimal("0.01")},
}


@pytest.fixture
def event() -> OrderEvent:
    return OrderEventFactory.build(event_type=ORDER_PAID)


def records_of(*events: OrderEvent, first_offset: int = 0) -> list[Record]:
    return [kafka_record(encode(event), offset=offset) for offset, event in enumerate(events, start=first_offset)]


def saved() -> list[tuple[Any, ...]]:
    return list(Notification.objects.order_by("pk").values_list("event_id", "type", "order_id", "user_id"))


def rows_of(*events: OrderEvent) -> list[tuple[Any, ...]]:
    return [(event.event_id, event.event_type, event.order_id, event.user_id) for event in events]


@pytest.mark.django_db
@OTHER
@pytest.mark.parametrize("batches", ["one batch", "two batches"])
@pytest.mark.parametrize("forged_first", [False, True])
def test_a_conflict_is_one_dead_letter_and_neighbours_are_saved(
    event: OrderEvent, other: dict[str, Any], batches: str, forged_first: bool
) -> None:
    forged = msgspec.structs.replace(event, **other)
    pair = (forged, event) if forged_first else (event, forged)
    before, between, after = OrderEventFactory.build_batch(3)
    records = records_of(before, pair[0], between, pair[1], after)
    if batches == "one batch":
        process(records)
    else:
        process(records[:2])
        process(records[2:])
    assert saved() == rows_of(before, pair[0], between, after)
    letter = DeadLetter.objects.get()
    assert (letter.offset, letter.state) == (3, "open")
    named = (letter.event_id, letter.event_type, letter.subject_id)
    assert named == (event.event_id, pair[1].event_type, pair[1].order_id)
    assert letter.error_class == "events.troubles.EventIdConflict"
    for one in pair:
        assert f"{one.event_type} of order {one.order_id} for user {one.user_id}" in letter.error_message


@pytest.mark.django_db
@pytest.mark.parametrize("changes", REPEATS.values(), ids=REPEATS)
def test_a_repeat_with_other_fields_stays_a_duplicate(event: OrderEvent, changes: dict[str, Any]) -> None:
    again = msgspec.structs.replace(event, **changes)
    process(records_of(event, again))
    process(records_of(again, again, first_offset=2))
    assert saved() == rows_of(event)
    assert not DeadLetter.objects.exists()


@pytest.mark.django_db
def test_many_conflicts_and_repeats_in_a_batch_are_told_apart() -> None:
    events = OrderEventFactory.build_batch(8)
    process(records_of(*events[:4]))
    forged = [msgspec.structs.replace(event, user_id=99) for event in events]
    process(records_of(*events, *forged, *events, first_offset=4))
    assert sorted(saved()) == sorted(rows_of(*events))
    assert list(DeadLetter.objects.order_by("offset").values_list("offset", flat=True)) == list(range(12, 20))


@pytest.mark.django_db
def test_a_conflict_that_is_delivered_again_is_the_same_letter(event: OrderEvent) -> None:
    records = records_of(event, msgspec.structs.replace(event, user_id=99))
    for _ in range(3):
        process(records)
    assert DeadLetter.objects.count() == 1
    assert OutboxEvent.objects.count() == 1


@pytest.mark.django_db
def test_conflicts_count_toward_the_dead_letter_limit(event: OrderEvent) -> None:
    forged = [msgspec.structs.replace(event, user_id=user_id) for user_id in range(90, 95)]
    assert process(records_of(event, *forged[:2]), limit=3) == (3, False)
    assert ConsumerGroup.objects.get().consecutive_dead_letters == 2
    assert process(records_of(*forged[2:], first_offset=3), limit=3) == (1, True)
    assert DeadLetter.objects.count() == 3


@pytest.mark.django_db(transaction=True)
@OTHER
def test_a_conflict_is_a_log_line_and_a_metric(
    event: OrderEvent, other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def count() -> float:
        labels = {"group": "group", "topic": "order-events", "reason": "EventIdConflict"}
        return REGISTRY.get_sample_value("events_dead_letters_total", labels) or 0

    before = count()
    process(records_of(event))
    assert count() == before
    process(records_of(msgspec.structs.replace(event, **other), first_offset=1))
    assert count() == before + 1
    (line,) = [one for one in caplog.records if one.name == "events.consuming.processing"]
    assert line.levelno >= logging.WARNING
    assert f"order-events[0]@1: EventIdConflict: Event id {event.event_id} came first with" in line.getMessage()


@pytest.mark.django_db
def test_only_repeated_events_are_compared(event: OrderEvent) -> None:
    """New events take one INSERT. Repeated events are compared by one SELECT."""

    def statements(*events: OrderEvent) -> list[str]:
        seen: list[str] = []

        def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
            seen.append(sql.split()[0])
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            notify(events)
        return seen

    others = OrderEventFactory.build_batch(20)
    assert statements(event, *others) == ["INSERT"]
    assert statements(event, *others, *OrderEventFactory.build_batch(20)) == ["INSERT", "SELECT"]


@pytest.mark.django_db(transaction=True)
class TestOnTheBroker:
    @pytest.fixture
    def start(self, topics: Topics, settings: Settings) -> Iterator[Callable[[], Running]]:
        settings.EVENT_PUBLISHER = "events.outbox.publisher.BackgroundPublisher"
        group = f"group-{uuid4().hex[:8]}"
        running: list[Running] = []

        def start() -> Running:
            running.append(Running(notifying(NotificationSubscription, group=group)))
            return running[-1]

        yield start
        for one in running:
            one.stop()
        current_publisher().close()

    def test_a_replayed_conflict_stays_the_same_open_letter(
        self, start: Callable[[], Running], topics: Topics, event: OrderEvent
    ) -> None:
        for one in (event, msgspec.structs.replace(event, user_id=99)):
            produce(topics.order_events, encode(one), partition=0)
        consumer = start()
        letter = wait_until(DeadLetter.objects.first)
        for times in (1, 2):
            assert not replay(letter_id=letter.pk).refusal
            wait_until(lambda: not OutboxEvent.objects.pending().exists() and consumer.caught_up())
            letter = DeadLetter.objects.get()
            assert (letter.state, letter.replay_count) == ("open", times)
        assert saved() == rows_of(event)

    @OTHER
    def test_of_two_consumers_one_notifies_and_one_dead_letters(
        self, start: Callable[[], Running], topics: Topics, event: OrderEvent, other: dict[str, Any]
    ) -> None:
        forged = msgspec.structs.replace(event, **other)
        consumers = [start(), start()]
        for partition in (0, 1, 2):
            produce(topics.order_events, encode(event), partition=partition)
            produce(topics.order_events, encode(forged), partition=partition)
        wait_until(lambda: all(one.caught_up() for one in consumers))
        assert saved() in (rows_of(event), rows_of(forged))
        letters = DeadLetter.objects.values_list("subject_id", "event_type")
        loser = forged if saved() == rows_of(event) else event
        assert list(letters) == [(loser.order_id, loser.event_type)] * 3


@pytest.mark.django_db(transaction=True)
@OTHER
def test_a_consumer_compares_after_another_transaction(event: OrderEvent, other: dict[str, Any]) -> None:
    """Two transactions insert a notification with the same event id at the same time."""
    forged = msgspec.structs.replace(event, **other)
    rival = connection.copy()

    def process_elsewhere() -> Progress:
        try:
            return process(records_of(forged))
        finally:
            connection.close()

    with ThreadPoolExecutor() as background, rival.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            """
            INSERT INTO notifications_notification (user_id, order_id, event_id, type, message, created_at)
            VALUES (%s, %s, %s, %s, '', clock_timestamp())
            """,
            [event.user_id, event.order_id, event.event_id, event.event_type],
        )
        processed = background.submit(process_elsewhere)
        wait_until(a_lock_is_awaited)
        cursor.execute("COMMIT")
        assert processed.result(10) == (1, False)
    rival.close()
    assert saved() == rows_of(event)
    assert DeadLetter.objects.get().error_class.endswith("EventIdConflict")
