"""Replays of dead letters, until a consumer handles them or the limit is reached."""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoCaptureOnCommitCallbacks

from conftest import Topics
from events.consuming.dead_letters import record_dead_letter
from events.consuming.replay import open_letters, preview, replay
from events.kafka import Unreadable
from events.kafka.records import UnreadableRecord
from events.models import DeadLetter, OutboxEvent
from events.outbox.publisher import RecordingPublisher
from events.outbox.relay import Relay
from events.troubles import Poison
from events.wire.headers import Header, unpack
from testkit.factories import kafka_record
from testkit.kafka_client import Message, read_topic
from testkit.subscriptions import process, rows

GROUP = "group"


@transaction.atomic
def new_letter(value: bytes | None = b"garbage", *, group: str = GROUP, **record: Any) -> DeadLetter:
    """Make a message a dead letter, and return the letter."""
    position = {"offset": DeadLetter.objects.count()} | record
    record_dead_letter(record=kafka_record(value, **position), error=Poison("no event"), group=group)
    return DeadLetter.objects.latest("pk")


def unreadable() -> Unreadable:
    value = Unreadable()
    value.error = UnreadableRecord("not UTF-8")
    return value


def replays() -> list[OutboxEvent]:
    return list(OutboxEvent.objects.filter(event_type="REPLAY").order_by("pk"))


def headers(row: OutboxEvent) -> list[Header]:
    return unpack(row.headers)


class StubHandler:
    """A handler that accepts every message, or refuses every message as poison."""

    def __init__(self, *, accepts: bool) -> None:
        self.accepts = accepts

    def decode(self, value: bytes | None) -> bytes | None:
        if not self.accepts:
            raise Poison("still no event")
        return value

    def save(self, events: Sequence[bytes | None]) -> None:
        pass


def consume_replay(row: OutboxEvent, *, accepts: bool) -> None:
    """Consume the message of a replay's outbox row. Handling it succeeds only if `accepts` is True."""
    value = None if row.value is None else bytes(row.value)
    record = kafka_record(value, topic=row.topic, partition=row.partition, offset=1000 + row.pk, headers=headers(row))
    process([record], rows(StubHandler(accepts=accepts), group=GROUP))


@pytest.mark.django_db(transaction=True)
class TestOnTheBroker:
    def sent(self, topics: Topics, **record: Any) -> Message:
        """Make a dead letter of a record with these fields, replay it, and return the replay's message on the topic."""
        letter = new_letter(record.pop("value", b"garbage"), topic=topics.order_events, **record)
        OutboxEvent.objects.all().delete()  # This is the copy for the -dlt topic.
        assert not replay(letter_id=letter.pk).refusal
        relay = Relay(stopping=lambda: False, wait=time.sleep)
        try:
            assert relay.sweep(older_than=timedelta(0)) == (1, None)
        finally:
            relay.close()
        (message,) = read_topic(topics.order_events)
        return message

    def test_a_replay_is_the_message_with_two_headers_more(self, topics: Topics) -> None:
        original = [("a", b"\xff\x00"), ("a", b"2"), ("traceparent", b"00-x")]
        message = self.sent(topics, value=b"\x00garbage\xff", key=b"\xfe", headers=original, partition=2)
        letter = DeadLetter.objects.get()
        assert (message.partition, message.key, message.value) == (2, b"\xfe", b"\x00garbage\xff")
        assert message.headers == [*original, ("replay-count", b"1"), ("dead-letter-id", str(letter.pk).encode())]

    def test_a_null_value_with_a_key_stays_null(self, topics: Topics) -> None:
        message = self.sent(topics, value=None, key=b"k")
        assert (message.key, message.value) == (b"k", None)

    def test_unsendable_nulls_are_sent_empty_and_close_their_letter(self, topics: Topics) -> None:
        message = self.sent(topics, value=None, key=None, headers=[("h", None)])
        assert (message.key, message.value, message.headers[0]) == (None, b"", ("h", b""))
        consume_replay(replays()[0], accepts=True)
        assert DeadLetter.objects.get().state == "replayed"


@pytest.mark.django_db
class TestReplay:
    def test_headers_of_an_earlier_replay_are_replaced(self) -> None:
        letter = new_letter(headers=[("replay-count", b"4"), ("h", b"1"), ("dead-letter-id", b"77"), ("h", b"2")])
        replay(letter_id=letter.pk)
        (row,) = replays()
        assert headers(row) == [
            ("h", b"1"),
            ("h", b"2"),
            ("replay-count", b"1"),
            ("dead-letter-id", str(letter.pk).encode()),
        ]

    def test_a_replay_leaves_after_commit_under_its_own_event_id(
        self, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks, publisher: RecordingPublisher
    ) -> None:
        letter = new_letter(b'{"eventId":"5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55"}')
        with django_capture_on_commit_callbacks(execute=True):
            replay(letter_id=letter.pk)
            assert publisher.published == []
        assert publisher.published == [row.message for row in replays()]
        assert replays()[0].event_id != letter.event_id

    def test_a_letter_stays_open_until_its_replay_was_handled(self) -> None:
        letter = new_letter()
        replay(letter_id=letter.pk)
        letter.refresh_from_db()
        assert (letter.state, letter.replay_count) == ("open", 1)
        consume_replay(replays()[0], accepts=True)
        letter.refresh_from_db()
        assert letter.state == "replayed"
        assert letter.closed_at

    def test_a_failing_replay_is_one_letter_and_refused_at_the_limit(self) -> None:
        letter = new_letter(headers=[("h", b"1")])
        for count in range(1, 6):
            assert not replay(letter_id=letter.pk).refusal
            row = replays()[-1]
            assert headers(row)[:2] == [("h", b"1"), ("replay-count", str(count).encode())]
            consume_replay(row, accepts=False)
        last = DeadLetter.objects.get()
        assert (last.pk, last.state, last.replay_count) == (letter.pk, "open", 5)
        assert last.error_message == "still no event"
        assert OutboxEvent.objects.filter(event_type="DEAD_LETTER").count() == 1
        refusal = replay(letter_id=letter.pk).refusal
        assert "replayed 5 times, which is the limit" in refusal
        assert len(replays()) == 5
        assert DeadLetter.objects.get().replay_count == 5

    def test_a_replay_of_an_unreadable_record_is_refused(self) -> None:
        outcome = replay(letter_id=new_letter(unreadable(), key=None).pk)
        assert "its content is unknown" in outcome.refusal
        assert (replays(), outcome.letter.replay_count) == ([], 0)

    @pytest.mark.parametrize("field", ["key", "value", "headers"])
    def test_what_no_topic_takes_is_refused_unread(self, field: str) -> None:
        letter = new_letter()
        DeadLetter.objects.update(**{field: b"x" * (2 * 1024 * 1024 + 1)})
        with CaptureQueriesContext(connection) as queries:
            outcome = replay(letter_id=letter.pk)
        assert "are more than the 2097152 that a message may have" in outcome.refusal
        assert (replays(), outcome.letter.replay_count) == ([], 0)
        assert not any(f'"{field}",' in query["sql"] for query in queries)

    @pytest.mark.parametrize("state", ["replayed", "dismissed"])
    def test_a_closed_letter_is_refused(self, state: str) -> None:
        letter = new_letter()
        DeadLetter.objects.update(state=state)
        assert f"it is {state} already" in replay(letter_id=letter.pk).refusal
        assert replays() == []

    def test_a_preview_gives_the_same_answer_and_changes_nothing(self) -> None:
        good, bad = new_letter(), new_letter(unreadable())
        assert preview(letter_id=good.pk).refusal == ""
        assert preview(letter_id=bad.pk).refusal == replay(letter_id=bad.pk).refusal
        assert replays() == []

    def test_letters_that_arrive_during_a_replay_are_left_out(self) -> None:
        first, second = new_letter(), new_letter()
        ids = open_letters()
        assert next(ids) == first.pk
        new_letter()
        assert list(ids) == [second.pk]

    def test_any_number_of_letters_is_walked_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("events.consuming.replay.IDS_PER_QUERY", 2)
        letters = [new_letter().pk for _ in range(5)]
        assert list(open_letters()) == letters

    def test_looking_for_letters_reads_no_values(self) -> None:
        letter = new_letter()
        with CaptureQueriesContext(connection) as queries:
            list(open_letters(event_type=""))
            preview(letter_id=letter.pk)
        assert len(queries) >= 3
        # Asking the database for the length is allowed.
        assert not any(
            '"value"' in query["sql"].replace('LENGTH("events_deadletter"."value")', "") for query in queries
        )


@pytest.mark.django_db(transaction=True)
def test_parallel_replays_of_one_letter_are_all_counted() -> None:
    letter = new_letter()
    together = threading.Barrier(5)

    def replay_it() -> None:
        together.wait()
        replay(letter_id=letter.pk)
        connection.close()

    threads = [threading.Thread(target=replay_it) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(dict(headers(row))["replay-count"] or b"" for row in replays()) == [b"1", b"2", b"3", b"4", b"5"]
    assert DeadLetter.objects.get().replay_count == 5
