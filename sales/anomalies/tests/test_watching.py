"""The watcher waits until the group `sales` has handled the events of a step, and outlives outages."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from conftest import Topics
from events.models import OutboxEvent
from events.outbox.publisher import RecordingPublisher
from sales.anomalies import watching
from sales.anomalies.judging import Judgement
from sales.anomalies.models import AnomalyWatch, SalesAnomaly
from sales.anomalies.tests.conftest import NOON, SetDatabaseClock, sell
from sales.anomalies.watching import Watcher
from testkit.kafka_client import produce
from testkit.subscriptions import read_and_commit
from testkit.waiting import wait_until

QUARTER = timedelta(minutes=15)


@pytest.fixture
def watch(history: None, topics: Topics, set_database_clock: SetDatabaseClock, settings: Settings) -> None:
    """Create a surge of sales in the 15 minutes after noon. They are just over, and no watcher has judged them."""
    settings.SALES_ANOMALY_GRACE = timedelta(0)
    AnomalyWatch.objects.create(judged_until=NOON)
    sell(NOON, NOON + QUARTER, orders=50)
    set_database_clock(NOON + QUARTER)


@pytest.fixture
def watcher(watch: None) -> Iterator[Watcher]:
    with closing(Watcher(stopping=lambda: False, wait=time.sleep)) as watcher:
        yield watcher


@pytest.fixture
def reads_the_topic(topics: Topics) -> Callable[[int], None]:
    def read(records: int) -> None:
        read_and_commit(topics.order_events, "sales", records)

    return read


def found(watcher: Watcher) -> Judgement:
    judgements: list[Judgement | None] = []
    wait_until(lambda: judgements.append(watcher.judge()) or judgements[-1])  # type: ignore[func-returns-value]
    assert judgements[-1] is not None
    return judgements[-1]


def test_anomaly_is_published_at_once(watcher: Watcher, publisher: RecordingPublisher) -> None:
    assert [event.event_type for event in found(watcher).events] == ["SALES_ANOMALY_DETECTED"]
    assert publisher.published == found_events()
    assert watcher.judge() == Judgement(0, [])


def found_events() -> list[object]:
    return [row.message for row in OutboxEvent.objects.all()]


def test_steps_wait_until_the_group_has_handled_the_topic(
    watcher: Watcher, topics: Topics, reads_the_topic: Callable[[int], None]
) -> None:
    produce(topics.order_events, b"1", partition=0)
    produce(topics.order_events, b"2", partition=2)
    assert watcher.judge() is None
    reads_the_topic(1)
    assert watcher.judge() is None
    assert not SalesAnomaly.objects.exists()
    reads_the_topic(1)
    assert found(watcher).steps == 3


def test_records_that_come_later_are_not_waited_for(
    watcher: Watcher, topics: Topics, reads_the_topic: Callable[[int], None]
) -> None:
    produce(topics.order_events, b"1", partition=0)
    assert watcher.judge() is None
    reads_the_topic(1)
    for partition in (0, 1):
        produce(topics.order_events, b"2", partition=partition)
    assert found(watcher).steps == 3


@pytest.mark.parametrize(("minutes", "waits"), [(14, True), (15, False)])
def test_steps_wait_for_pending_events_of_their_time(
    watcher: Watcher, settings: Settings, minutes: int, *, waits: bool
) -> None:
    moment = NOON + timedelta(minutes=minutes)
    OutboxEvent.objects.create(
        event_id="5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
        event_type="ORDER_CREATED",
        topic=settings.ORDER_EVENTS_TOPIC,
        headers=b"",
        created_at=moment,
    )
    if waits:
        assert [watcher.judge() for _ in range(3)] == [None] * 3
        OutboxEvent.objects.update(parked_at=moment)
    assert found(watcher).steps == 3


@pytest.mark.django_db(transaction=True)
def test_unreachable_kafka_does_not_end_the_watcher(
    watch: None,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    set_database_clock: SetDatabaseClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers = settings.KAFKA_BOOTSTRAP_SERVERS
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    monkeypatch.setattr("events.kafka.connecting.CONNECT_TIMEOUT_MS", 500)
    rounds = 0

    def wait(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        assert rounds < 30
        time.sleep(seconds / 4)
        if rounds == 2:
            monkeypatch.undo()
            settings.KAFKA_BOOTSTRAP_SERVERS = servers
            set_database_clock(NOON + timedelta(minutes=20))

    with closing(Watcher(stopping=lambda: rounds > 2 and SalesAnomaly.objects.exists(), wait=wait)) as watcher:
        watcher.run()
    assert caplog.text.count("Sales are not judged: ") <= 1
    assert SalesAnomaly.objects.count() == 1


def test_once_says_what_it_found(watch: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("watch_sales", once=True)
    assert capsys.readouterr().out == "judged 3 intervals, found 1\n"
    call_command("watch_sales", once=True)
    assert capsys.readouterr().out == "judged 0 intervals, found 0\n"


def test_once_fails_while_events_are_not_handled(watch: None, topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    produce(topics.order_events, b"1")
    monkeypatch.setattr("sales.management.commands.watch_sales.COMPLETE_TIMEOUT_S", 0.1)
    with pytest.raises(CommandError, match="The group sales has not handled all events"):
        call_command("watch_sales", once=True)
    assert not SalesAnomaly.objects.exists()


def test_watcher_asks_kafka_only_when_a_step_has_closed(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    found(watcher)
    monkeypatch.setattr(watching, "CaughtUp", None)
    assert watcher.judge() == Judgement(0, [])
