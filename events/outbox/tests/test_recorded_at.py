"""The database's clock measures the age of an outbox row, so the clocks of processes do not matter."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from conftest import SetClock, Topics
from events.database_clock import database_now
from events.models import OutboxEvent
from events.observing.readings import read_outbox
from events.outbox import recording as outbox
from events.outbox.relay import Relay
from events.wire import timestamps
from events.wire.messages import Message
from testkit.factories import OutboxEventFactory

pytestmark = pytest.mark.django_db(transaction=True)

GRACE = timedelta(seconds=30)
HOURS = [timedelta(hours=2), timedelta(hours=-2)]
CLOCKS = pytest.mark.parametrize(
    ("recorder", "reader"),
    [(ahead, timedelta(0)) for ahead in HOURS] + [(timedelta(0), ahead) for ahead in HOURS] + [HOURS, HOURS[::-1]],
    ids=lambda ahead: f"{ahead.total_seconds() / 3600:+.0f}h",
)


@pytest.fixture
def relay() -> Iterator[Relay]:
    relay = Relay(stopping=lambda: False, wait=time.sleep)
    yield relay
    relay.close()


def record(topic: str = "order-events", **changes: Any) -> OutboxEvent:
    """Record an event as the product does."""
    fields = {"key": b"1", "value": b"{}", "headers": b"\x90", "created_at": timestamps.now()} | changes
    with transaction.atomic():
        message = outbox.record(Message(event_id=uuid4(), event_type="ORDER_CREATED", topic=topic, **fields))
    return OutboxEvent.objects.get(event_id=message.event_id)


def backdate(row: OutboxEvent, age: timedelta) -> None:
    """Change the row's `recorded_at` to `age` ago, in the database and not in the object `row`."""
    OutboxEvent.objects.filter(pk=row.pk).update(recorded_at=database_now() - age)


@CLOCKS
class TestTwoClocks:
    def test_the_relay_leaves_only_young_rows(
        self, set_clock: SetClock, relay: Relay, topics: Topics, recorder: timedelta, reader: timedelta
    ) -> None:
        set_clock(recorder)
        old, young = record(topics.order_events), record(topics.order_events)
        backdate(old, GRACE * 2)
        set_clock(reader)
        assert relay.sweep(older_than=GRACE) == (1, None)
        assert OutboxEvent.objects.pending().get() == young

    def test_once_sends_everything_without_an_error(
        self,
        set_clock: SetClock,
        topics: Topics,
        capsys: pytest.CaptureFixture[str],
        recorder: timedelta,
        reader: timedelta,
    ) -> None:
        set_clock(recorder)
        for _ in range(3):
            record(topics.order_events)
        set_clock(reader)
        call_command("relay_outbox", once=True)
        assert capsys.readouterr().out == "sent 3\n"

    def test_the_age_counts_from_the_recording(
        self, set_clock: SetClock, recorder: timedelta, reader: timedelta
    ) -> None:
        set_clock(recorder)
        backdate(record(), timedelta(seconds=90))
        record()
        set_clock(reader)
        assert 90 <= read_outbox().oldest_pending_seconds < 150

    def test_a_new_row_has_a_low_age(self, set_clock: SetClock, recorder: timedelta, reader: timedelta) -> None:
        set_clock(recorder)
        record()
        set_clock(reader)
        assert 0 <= read_outbox().oldest_pending_seconds < 30

    def test_once_reports_only_the_rows_that_it_parked(
        self, set_clock: SetClock, topics: Topics, recorder: timedelta, reader: timedelta
    ) -> None:
        OutboxEventFactory.create(topic=topics.order_events, parked_at=database_now() - timedelta(minutes=1))
        set_clock(recorder)
        record(topics.order_events, value=b"x" * (2 * 1024 * 1024 + 1))
        set_clock(reader)
        with pytest.raises(CommandError, match=r"^1 event could not be sent\. 1 was parked, because it can"):
            call_command("relay_outbox", once=True)
        call_command("relay_outbox", once=True)


def test_rows_of_a_database_whose_clock_was_set_back_are_sent(relay: Relay, topics: Topics) -> None:
    ahead = record(topics.order_events)
    backdate(ahead, timedelta(hours=-2))
    record(topics.order_events)
    assert relay.sweep(older_than=GRACE) == (1, None)
    assert read_outbox().oldest_pending_seconds < 30
    call_command("relay_outbox", once=True)
    assert not OutboxEvent.objects.pending().exists()


class TestReasonForPendingRows:
    def test_an_outage_is_named(self, topics: Topics, settings: Any) -> None:
        settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
        record(topics.order_events)
        said = r"^1 event could not be sent\. 1 is pending: .*(does not answer|metadata)"
        with pytest.raises(CommandError, match=said):
            call_command("relay_outbox", once=True)

    @pytest.mark.parametrize(
        ("pending", "said"),
        [(1, "1 is pending: it waits behind a parked"), (2, "2 are pending: each waits behind a parked")],
    )
    def test_a_parked_predecessor_is_named(self, topics: Topics, pending: int, said: str) -> None:
        for sequence in range(1, 2 + pending):
            parked = {"parked_at": database_now() - timedelta(minutes=1)} if sequence == 1 else {}
            OutboxEventFactory.create(topic=topics.order_events, stream="order-1", sequence=sequence, **parked)
        with pytest.raises(CommandError, match=rf"{said} event of its stream$"):
            call_command("relay_outbox", once=True)


class TestMigration:
    @pytest.fixture(autouse=True)
    def _before_the_migration(self) -> Iterator[None]:
        call_command("migrate", "events", "0005_published_index_without_pending", verbosity=0)
        yield
        call_command("migrate", "events", verbosity=0)

    def test_it_rewrites_no_row_and_dates_pending_rows(self) -> None:
        insert_as_previous_release(created="now() - interval '1 hour'")
        insert_as_previous_release(created="now() + interval '1 hour'")
        insert_as_previous_release(created="now() - interval '9 days'", published="now() - interval '9 days'")
        before = table_file_number()
        call_command("migrate", "events", verbosity=0)
        assert table_file_number() == before
        assert 3600 <= read_outbox().oldest_pending_seconds < 3700
        pending = OutboxEvent.objects.pending()
        assert pending.filter(OutboxEvent.objects.recorded_by(database_now())).count() == 2

    def test_the_previous_release_can_still_record(self) -> None:
        call_command("migrate", "events", verbosity=0)
        insert_as_previous_release(created="now() - interval '2 hours'")
        assert 0 <= read_outbox().oldest_pending_seconds < 30


def insert_as_previous_release(*, created: str, published: str = "NULL") -> None:
    """Insert an outbox row with only the columns that the previous release knows.

    `created` and `published` are SQL expressions for the columns `created_at` and `published_at`.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events_outboxevent (event_id, event_type, topic, value, headers, parked_reason, created_at,"
            " published_at, published_partition, published_offset)"
            f" VALUES (gen_random_uuid(), 'ORDER_CREATED', 'order-events', '', '', '', {created}, {published}, 0, 0)"
        )


def table_file_number() -> int:
    """Return PostgreSQL's file number of the outbox table. It changes when PostgreSQL rewrites the table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_relation_filenode('events_outboxevent')")
        (number,) = cursor.fetchone()
    return int(number)
