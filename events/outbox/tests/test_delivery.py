"""On a real broker, the publisher and the relay send committed rows in order and mark them as published."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from conftest import Topics
from events.models import OutboxEvent
from events.outbox import recording as outbox
from events.outbox.publisher import MAX_QUEUED_MESSAGE_BYTES, BackgroundPublisher
from events.outbox.relay import TURN_LOCK_ID, Relay
from events.wire.headers import pack, unpack
from events.wire.messages import Message
from events.wire.timestamps import now
from testkit.factories import OutboxEventFactory
from testkit.kafka_client import read_topic
from testkit.servers import Broker
from testkit.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

EVERYTHING = timedelta(0)


@pytest.fixture
def relay(broker: Broker) -> Iterator[Relay]:
    relay = Relay(stopping=lambda: False, wait=time.sleep)
    yield relay
    relay.close()


@pytest.fixture
def background(broker: Broker) -> Iterator[BackgroundPublisher]:
    publisher = BackgroundPublisher()
    yield publisher
    publisher.close()


def all_published() -> bool:
    return not OutboxEvent.objects.pending().exists()


def test_the_relay_sends_a_row_byte_for_byte(relay: Relay, topics: Topics) -> None:
    headers = [("ce_id", b"1"), ("binary", bytes(range(256))), ("ce_id", b"again"), ("empty", b"")]
    row = OutboxEventFactory.create(
        topic=topics.order_events, key=b"\xff\x00", value=b"\x00\xffvalue", headers=pack(headers), partition=2
    )
    null = OutboxEventFactory.create(topic=topics.order_events, key=b"k", value=None, partition=1)
    assert relay.sweep(older_than=EVERYTHING) == (2, None)
    by_partition = {message.partition: message for message in read_topic(topics.order_events)}
    assert by_partition[2][2:] == (b"\xff\x00", b"\x00\xffvalue", headers)
    assert by_partition[1].value is None
    row.refresh_from_db()
    assert (row.published_path, row.published_partition, row.published_offset) == ("relay", 2, 0)
    assert row.published_at is not None
    null.refresh_from_db()
    assert null.published_at is not None


def test_a_backlog_is_found_at_once_with_stale_statistics(topics: Topics) -> None:
    backlog = 3_000
    with connection.cursor() as cursor:
        # PostgreSQL's statistics come from a table without pending rows, as at the start of an outage.
        _record_many(cursor, topics.order_events, count=20_000)
        OutboxEvent.objects.update(published_at=now(), published_partition=0, published_offset=0)
        cursor.execute("ANALYZE events_outboxevent")
        _record_many(cursor, topics.order_events, count=backlog)
        cursor.execute("SET statement_timeout = '2s'")
        try:
            assert OutboxEvent.objects.sendable().count() == backlog
        finally:
            cursor.execute("RESET statement_timeout")


def _record_many(cursor: CursorWrapper, topic: str, *, count: int) -> None:
    """Insert `count` pending rows with one statement."""
    cursor.execute(
        "INSERT INTO events_outboxevent"
        " (event_id, event_type, topic, key, value, headers, stream, sequence, created_at, parked_reason)"
        " SELECT id, 'ORDER_CREATED', %s, '', '', '', id::text, 1, now(), ''"
        " FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %s)) AS drawn",
        [topic, count],
    )


def test_a_partition_the_topic_does_not_have_is_chosen_by_key(relay: Relay, topics: Topics) -> None:
    OutboxEventFactory.create(topic=topics.order_events, partition=17)
    assert relay.sweep(older_than=EVERYTHING) == (1, None)


def test_the_fast_path_publishes_at_once(background: BackgroundPublisher, topics: Topics) -> None:
    rows = OutboxEventFactory.create_batch(3, topic=topics.order_events)
    background.publish([row.message for row in rows])
    wait_until(all_published)
    assert set(OutboxEvent.objects.values_list("published_path", flat=True)) == {"fast"}
    assert len(read_topic(topics.order_events)) == 3


def test_the_fast_path_survives_a_database_restart(background: BackgroundPublisher, topics: Topics) -> None:
    background.publish([OutboxEventFactory.create(topic=topics.order_events).message])
    wait_until(all_published)
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid) {others}")
        assert cursor.rowcount >= 1

        def ended() -> bool:
            cursor.execute(f"SELECT count(*) {others}")
            return cursor.fetchone() == (0,)

        wait_until(ended)
    background.publish([OutboxEventFactory.create(topic=topics.order_events).message])
    wait_until(all_published)


def test_the_relay_leaves_young_rows_to_the_fast_path(relay: Relay, topics: Topics) -> None:
    young = OutboxEventFactory.create(topic=topics.order_events)
    OutboxEventFactory.create(topic=topics.order_events, recorded_at=now() - timedelta(minutes=1))
    assert relay.sweep(older_than=timedelta(seconds=30)) == (1, None)
    assert OutboxEvent.objects.pending().get() == young


def test_the_relay_sends_young_followers_of_what_it_sent(relay: Relay, topics: Topics) -> None:
    old = now() - timedelta(minutes=1)
    OutboxEventFactory.create(topic=topics.order_events, stream="order-1", sequence=1, recorded_at=old)
    OutboxEventFactory.create(topic=topics.order_events, stream="order-1", sequence=2)
    assert relay.sweep(older_than=timedelta(seconds=30)) == (2, None)


@pytest.mark.parametrize("committed", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_events_of_an_order_are_published_in_sequence(
    background: BackgroundPublisher, topics: Topics, committed: tuple[int, ...]
) -> None:
    """The background publisher alone, without the relay, sends the events in sequence.

    Their transactions may commit in any order.
    """
    rows = {
        sequence: OutboxEventFactory.create(
            topic=topics.order_events, value=b"%d" % sequence, stream="order-1", sequence=sequence
        )
        for sequence in (1, 2, 3)
    }
    for sequence in committed:
        background.publish([rows[sequence].message])
    wait_until(all_published)
    assert [message.value for message in read_topic(topics.order_events)] == [b"1", b"2", b"3"]


def test_an_event_with_a_distant_predecessor_delays_no_other(background: BackgroundPublisher, topics: Topics) -> None:
    first = OutboxEventFactory.create(topic=topics.order_events, stream="order-1", sequence=1)
    second = OutboxEventFactory.create(topic=topics.order_events, stream="order-1", sequence=2)
    other = OutboxEventFactory.create(topic=topics.order_events)
    background.publish([second.message, other.message])
    wait_until(lambda: OutboxEvent.objects.filter(pk=other.pk).exclude(published_at=None).exists())
    assert set(OutboxEvent.objects.pending()) == {first, second}


def test_a_missing_predecessor_is_looked_for_ever_more_seldom(
    background: BackgroundPublisher, topics: Topics, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OUTBOX_RELAY_GRACE = timedelta(seconds=1)
    OutboxEventFactory.create(topic=topics.order_events, stream="order-1", sequence=1)
    second = OutboxEventFactory.create(topic=topics.order_events, stream="order-1", sequence=2)
    waiting: list[int] = []
    look = background._sendable

    def counted(messages: Sequence[Message]) -> list[Message]:
        sendable = look(messages)
        waiting.append(len(background._waiting))
        return sendable

    monkeypatch.setattr(background, "_sendable", counted)
    background.publish([second.message])
    wait_until(lambda: waiting[-1:] == [0])
    assert 2 <= len(waiting) <= 10


def test_the_relay_keeps_the_order_of_every_stream(relay: Relay, topics: Topics, settings: Settings) -> None:
    settings.OUTBOX_BATCH_SIZE = 4
    for sequence in (3, 1, 2):
        for order in range(5):
            OutboxEventFactory.create(
                topic=topics.order_events,
                key=b"%d" % order,
                value=b"%d" % sequence,
                stream=f"order-{order}",
                sequence=sequence,
            )
    assert relay.sweep(older_than=EVERYTHING) == (15, None)
    messages = read_topic(topics.order_events)
    for order in range(5):
        assert [message.value for message in messages if message.key == b"%d" % order] == [b"1", b"2", b"3"]


def test_a_row_that_commits_late_is_sent_after_higher_ids(relay: Relay, topics: Topics) -> None:
    low, high = OutboxEventFactory.create_batch(2, topic=topics.order_events)
    OutboxEvent.objects.filter(pk=low.pk).delete()
    assert relay.sweep(older_than=EVERYTHING) == (1, None)
    low.save(force_insert=True)
    assert low.pk < high.pk
    assert relay.sweep(older_than=EVERYTHING) == (1, None)


def test_a_rolled_back_row_is_never_sent(relay: Relay, topics: Topics) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        OutboxEventFactory.create(topic=topics.order_events)
        raise RuntimeError
    assert relay.sweep(older_than=EVERYTHING) == (0, None)
    assert read_topic(topics.order_events) == []


def test_recording_outside_a_transaction_is_refused(topics: Topics) -> None:
    with pytest.raises(transaction.TransactionManagementError, match="in the transaction of the change"):
        outbox.record(OutboxEventFactory.build(topic=topics.order_events).message)


def test_relays_take_turns(relay: Relay, topics: Topics) -> None:
    OutboxEventFactory.create(topic=topics.order_events)
    other = threading.Event()
    taken = threading.Event()

    def hold_the_turn() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [TURN_LOCK_ID])
            taken.set()
            other.wait(10)
        connection.close()

    thread = threading.Thread(target=hold_the_turn)
    thread.start()
    assert taken.wait(10)
    assert relay.sweep(older_than=EVERYTHING) == (0, None)
    threading.Timer(0.2, other.set).start()
    assert relay.sweep(older_than=EVERYTHING, wait_for_turn=True) == (1, None)
    thread.join()


@pytest.mark.parametrize("too_many", [-10, 1], ids=["with its frame", "by itself"])
def test_an_unsendable_row_is_parked_and_delays_no_other(relay: Relay, topics: Topics, too_many: int) -> None:
    too_large = OutboxEventFactory.create(topic=topics.order_events, value=b"x" * (2 * 1024 * 1024 + too_many))
    OutboxEventFactory.create(topic=topics.order_events)
    assert relay.sweep(older_than=EVERYTHING) == (1, None)
    too_large.refresh_from_db()
    assert too_large.parked_at is not None
    assert "larger than" in too_large.parked_reason
    assert too_large.published_at is None


@pytest.mark.parametrize("field", ["key", "value", "headers"])
def test_rows_that_are_too_large_are_parked_unread(
    relay: Relay, topics: Topics, settings: Settings, field: str
) -> None:
    settings.OUTBOX_BATCH_SIZE = 2
    large = [
        OutboxEventFactory.create(topic=topics.order_events, **{field: b"x" * (2 * 1024 * 1024 + 1)}) for _ in range(5)
    ]
    OutboxEventFactory.create(topic=topics.order_events)
    with CaptureQueriesContext(connection) as queries:
        assert relay.sweep(older_than=EVERYTHING) == (1, None)
    parked = OutboxEvent.objects.filter(parked_at__isnull=False, published_at=None)
    assert set(parked.values_list("pk", flat=True)) == {row.pk for row in large}
    loading = [query["sql"] for query in queries if '"events_outboxevent"."value",' in query["sql"]]
    assert len(loading) == 1
    assert not any(f" {row.pk}" in sql or f"({row.pk}" in sql for row in large for sql in loading)


def test_a_missing_topic_holds_up_no_other(relay: Relay, topics: Topics, broker: Broker) -> None:
    if not broker.creates_topics:
        pytest.skip("the embedded broker creates every topic that a client names")
    OutboxEventFactory.create(topic="missing-topic")
    OutboxEventFactory.create(topic=topics.order_events)
    sent, outage = relay.sweep(older_than=EVERYTHING)
    assert sent == 1
    assert outage is not None
    assert OutboxEvent.objects.pending().get().topic == "missing-topic"


def test_an_outage_leaves_rows_pending_and_parks_none(relay: Relay, topics: Topics, broker: Broker) -> None:
    OutboxEventFactory.create(topic=topics.order_events)
    assert relay.sweep(older_than=EVERYTHING) == (1, None)
    broker.go_down()
    try:
        OutboxEventFactory.create_batch(3, topic=topics.order_events)
        sent, outage = relay.sweep(older_than=EVERYTHING)
        assert (sent, OutboxEvent.objects.pending().count()) == (0, 3)
        assert outage is not None
    finally:
        broker.come_back()

    def swept() -> bool:
        return relay.sweep(older_than=EVERYTHING)[0] == 3 or all_published()

    wait_until(swept)
    assert not OutboxEvent.objects.exclude(parked_at=None).exists()


def test_in_an_outage_the_fast_path_waits_for_the_relay(
    background: BackgroundPublisher, relay: Relay, topics: Topics, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    background.publish([OutboxEventFactory.create(topic=topics.order_events).message])
    wait_until(all_published)
    broker.go_down()
    try:
        background.publish([OutboxEventFactory.create(topic=topics.order_events).message])
        wait_until(lambda: "1 event, and those that follow, wait for the relay" in caplog.text)
        background.publish([OutboxEventFactory.create(topic=topics.order_events).message])
    finally:
        broker.come_back()
    wait_until(lambda: relay.sweep(older_than=EVERYTHING)[0] or all_published())
    wait_until(all_published)

    def published_at_once() -> bool:
        row = OutboxEventFactory.create(topic=topics.order_events)
        background.publish([row.message])
        time.sleep(0.2)
        row.refresh_from_db()
        return row.published_path == "fast"

    wait_until(published_at_once)
    assert list(OutboxEvent.objects.order_by("pk").values_list("published_path", flat=True)[:3]) == [
        *("fast", "relay", "relay")
    ]


def test_a_forked_process_publishes_with_a_publisher_of_its_own(topics: Topics, settings: Settings) -> None:
    """A pre-fork server may publish before it forks its workers."""
    settings.EVENT_PUBLISHER = "events.outbox.publisher.BackgroundPublisher"
    from events.outbox.publisher import current_publisher, publish

    publish([OutboxEventFactory.create(topic=topics.order_events).message])
    wait_until(all_published)
    row = OutboxEventFactory.create(topic=topics.order_events)
    connection.close()
    child = os.fork()
    if child == 0:
        try:
            publish([row.message])
            wait_until(all_published)
        finally:
            os._exit(0)
    wait_until(all_published)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert OutboxEvent.objects.get(pk=row.pk).published_path == "fast"
    current_publisher().close()


def test_messages_beyond_the_queue_wait_for_the_relay(topics: Topics, settings: Settings, relay: Relay) -> None:
    settings.OUTBOX_QUEUE_SIZE = 2
    publisher = BackgroundPublisher()
    try:
        rows = OutboxEventFactory.create_batch(50, topic=topics.order_events)
        publisher.publish([row.message for row in rows])
        wait_until(lambda: OutboxEvent.objects.filter(published_path="fast").count() == 2)
        assert relay.sweep(older_than=EVERYTHING) == (48, None)
    finally:
        publisher.close()
    assert len(read_topic(topics.order_events)) == 50


def test_a_message_too_large_for_memory_waits_for_the_relay(
    background: BackgroundPublisher, relay: Relay, topics: Topics
) -> None:
    large = OutboxEventFactory.create(topic=topics.order_events, value=b"x" * MAX_QUEUED_MESSAGE_BYTES)
    background.publish([large.message, OutboxEventFactory.create(topic=topics.order_events).message])
    wait_until(lambda: OutboxEvent.objects.filter(published_path="fast").exists())
    assert OutboxEvent.objects.pending().get() == large
    assert relay.sweep(older_than=EVERYTHING) == (1, None)


def test_the_fast_path_leaves_old_rows_to_the_relay(
    background: BackgroundPublisher, relay: Relay, topics: Topics, settings: Settings
) -> None:
    long_ago = now() - settings.OUTBOX_RELAY_GRACE
    old = OutboxEventFactory.create(topic=topics.order_events, created_at=long_ago, recorded_at=long_ago)
    background.publish([old.message, OutboxEventFactory.create(topic=topics.order_events).message])
    wait_until(lambda: OutboxEvent.objects.filter(published_path="fast").exists())
    assert OutboxEvent.objects.pending().get() == old
    assert relay.sweep(older_than=settings.OUTBOX_RELAY_GRACE) == (1, None)


def test_once_reports_unsent_events(topics: Topics, capsys: pytest.CaptureFixture[str]) -> None:
    OutboxEventFactory.create(topic=topics.order_events, value=b"x" * (2 * 1024 * 1024 + 1))
    OutboxEventFactory.create(topic=topics.order_events)
    with pytest.raises(CommandError, match="1 event could not be sent"):
        call_command("relay_outbox", once=True)
    assert capsys.readouterr().out == "sent 1\n"
    call_command("relay_outbox", once=True)
    assert capsys.readouterr().out == "sent 0\n"


def test_headers_survive_storage() -> None:
    headers = [("a", b"\xff"), ("a", None), ("é", b"")]
    assert unpack(pack(headers)) == headers
