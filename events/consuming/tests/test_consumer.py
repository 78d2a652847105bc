"""The consumer's loop without a broker: what it does after each kind of failure."""

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest
from django.db import OperationalError
from prometheus_client import REGISTRY
from pytest_django import Settings

from events.consuming import quarantine
from events.consuming.consumer import EventConsumer
from events.consuming.dead_letter_limit import TooManyDeadLetters
from events.kafka import Record, Unreadable
from events.kafka.reading_ahead import ReadAhead
from events.kafka.records import DamagedRecord, UnreadableRecord
from events.models import ConsumerGroup, DeadLetter, DeathMark, OutboxEvent
from events.subscriptions import Topic
from events.troubles import Outage, Poison
from testkit.factories import OutboxEventFactory, kafka_record
from testkit.subscriptions import process, rows
from testkit.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

GROUP = "group"


class Source:
    """A stand-in for the Kafka client: one partition with given records.

    `position` is the offset that is read next, and `committed` is the committed offset.
    """

    def __init__(self, records: Sequence[Record], batch_size: int = 500, *, start: int = 0) -> None:
        self._records = records
        self._batch_size = batch_size
        self.position = start
        self._held = False
        self.committed = 0
        self.holds = 0

    def poll(self, *, timeout: float, in_hand: bool = False) -> list[Record]:
        if self._held:
            return []
        batch = list(self._records[self.position : self.position + self._batch_size])
        self.position += len(batch)
        return batch

    def commit(self, records: Iterable[Record]) -> None:
        self.committed = max([self.committed, *(record.offset + 1 for record in records)])

    def hold(self, records: Sequence[Record]) -> None:
        self.position = min(record.offset for record in records)
        self._held = True
        self.holds += 1

    def release(self) -> None:
        self._held = False

    def close(self) -> None:
        """Do nothing."""

    def read_to_the_end(self) -> bool:
        return self.committed == len(self._records)


class RowHandler:
    """Saves a row for every value except "poison". If `actions` has a function for a value, it is called first."""

    def __init__(self, actions: dict[bytes, Callable[[], None]] | None = None) -> None:
        self.actions = actions or {}

    def decode(self, value: bytes | None) -> bytes | None:
        if value == b"poison":
            raise Poison("as it says")
        return value

    def save(self, events: Sequence[bytes]) -> None:
        for event in events:
            self.actions.get(event, lambda: None)()
            OutboxEventFactory.create(topic="saved", value=event)


def fail(*errors: Exception) -> Callable[[], None]:
    """Return a function that raises one of `errors` at each call, in their order. Further calls raise nothing."""
    left = list(errors)

    def act() -> None:
        if left:
            raise left.pop(0)

    return act


def records(*values: bytes) -> list[Record]:
    return [kafka_record(value, offset=offset) for offset, value in enumerate(values)]


def consume(
    source: Source,
    handler: RowHandler | None = None,
    *,
    group: str = GROUP,
    limit: int = 1000,
    event_types: Sequence[str] = (),
    stopping: Callable[[], bool] | None = None,
) -> None:
    with closing(ReadAhead(source)) as ahead:
        EventConsumer(
            source=ahead,
            subscription=rows(handler or RowHandler(), group=group, event_types=event_types),
            stopping=stopping or source.read_to_the_end,
            max_consecutive_dead_letters=limit,
        ).run()


def saved() -> list[bytes]:
    rows = OutboxEvent.objects.filter(topic="saved").order_by("pk")
    return [bytes(row.value or b"") for row in rows]


@pytest.fixture(autouse=True)
def _short_backoff(settings: Settings) -> None:
    settings.CONSUMER_RETRY_FIRST = 0.001
    settings.CONSUMER_RETRY_LAST = 0.01


def test_the_next_batch_is_read_while_the_first_is_saved(settings: Settings) -> None:
    settings.CONSUMER_SUSPECT_ATTEMPTS = 1
    source = Source(records(b"a", b"b"), batch_size=1)

    def wait_for_the_next() -> None:
        wait_until(lambda: source.position == 2, timeout=10)

    consume(source, RowHandler({b"a": wait_for_the_next}))
    assert saved() == [b"a", b"b"]


class TestTroubles:
    @pytest.mark.parametrize("trouble", [Outage("away"), OperationalError("away")])
    def test_an_outage_is_retried_for_as_long_as_it_lasts(self, trouble: Exception) -> None:
        source = Source(records(b"a", b"b", b"c"))
        consume(source, RowHandler({b"b": fail(*[trouble] * 20)}))
        assert saved() == [b"a", b"b", b"c"]
        assert source.holds == 20
        assert not DeadLetter.objects.exists()

    def test_a_suspect_that_succeeds_with_its_last_attempt_is_saved(self) -> None:
        consume(Source(records(b"a")), RowHandler({b"a": fail(KeyError("x"), KeyError("x"))}))
        assert saved() == [b"a"]
        assert not DeadLetter.objects.exists()

    def test_a_suspect_becomes_a_dead_letter_after_its_attempts(self) -> None:
        attempts: list[None] = []

        def always() -> None:
            attempts.append(None)
            raise KeyError("colour")

        source = Source(records(b"a", b"b"))
        consume(source, RowHandler({b"b": always}))
        assert set(saved()) == {b"a"}
        letter = DeadLetter.objects.get()
        assert (letter.offset, letter.error_class, letter.error_message) == (1, "builtins.KeyError", "'colour'")
        assert source.holds == 2  # Three attempts have two pauses between them.

    @pytest.mark.parametrize(("error", "holds"), [(UnreadableRecord("not UTF-8"), 0), (DamagedRecord("not UTF-8"), 2)])
    def test_an_unreadable_record_is_a_dead_letter_without_content(self, error: Exception, holds: int) -> None:
        """Only a record with a wrong checksum is read again.

        If the checksum is correct, another read would give the same bytes.
        """
        value = Unreadable()
        value.error = error
        unreadable = kafka_record(value, offset=1, key=None, timestamp=-1)
        source = Source([kafka_record(b"a"), unreadable, kafka_record(b"c", offset=2)])
        consume(source)
        letter = DeadLetter.objects.get()
        assert (letter.offset, letter.value, letter.is_readable, letter.error_message) == (1, None, False, "not UTF-8")
        assert {b"a", b"c"} <= set(saved())
        assert source.holds == holds


def test_an_event_of_an_unknown_type_is_a_dead_letter() -> None:
    topic = Topic(setting="ORDER_EVENTS_TOPIC", event_types=("OTHER",))
    process(records(b"a"), replace(rows(RowHandler()), topic=topic))
    assert "has no event type ROW: add it" in DeadLetter.objects.get().error_message
    assert not saved()


class TestMetrics:
    @staticmethod
    def counts(group: str) -> tuple[float, ...]:
        def value(name: str, **labels: str) -> float:
            return REGISTRY.get_sample_value(name, {"group": group, **labels}) or 0

        return (
            value("events_consumed_total", event_type="KNOWN", outcome="dead"),
            value("events_consumed_total", event_type="OTHER", outcome="dead"),
            value("events_dead_letters_total", topic="order-events", reason="Poison"),
            value("consumer_batch_size_sum"),
            value("consumer_batch_seconds_count"),
        )

    def test_a_dead_letter_is_counted_by_known_type_and_reason(self) -> None:
        before = self.counts(GROUP)
        types = (b"KNOWN", b"INVENTED", b"")
        poison = [kafka_record(b"poison", offset=at, headers=[("ce_type", one)]) for at, one in enumerate(types)]
        consume(Source(poison), event_types=["KNOWN"])
        consume(Source(poison), event_types=["KNOWN"])
        assert [after - known for after, known in zip(self.counts(GROUP), before, strict=True)] == [1, 2, 3, 6, 2]

    def test_each_group_counts_its_own_dead_letters_and_batches(self) -> None:
        groups = ("first", "second")
        before = [self.counts(group) for group in groups]
        poison = [kafka_record(b"poison", offset=at, headers=[("ce_type", b"KNOWN")]) for at in range(5)]
        consume(Source(poison[:2]), group="first", event_types=["KNOWN"])
        consume(Source(poison, batch_size=2), group="second", event_types=["KNOWN"])
        added = [
            [after - known for after, known in zip(self.counts(group), old, strict=True)]
            for group, old in zip(groups, before, strict=True)
        ]
        assert added == [[2, 0, 2, 2, 1], [5, 0, 5, 5, 3]]


class TestLimitOfDeadLetters:
    def test_it_stops_at_exactly_the_limit_and_has_committed_so_far(self) -> None:
        source = Source(records(*[b"poison"] * 20))
        with pytest.raises(TooManyDeadLetters, match="after 7 dead letters in a row of group group"):
            consume(source, limit=7)
        assert (DeadLetter.objects.count(), source.committed) == (7, 7)

    def test_with_a_higher_limit_it_continues_at_its_offset(self) -> None:
        everything = records(*[b"poison"] * 9, b"good")
        first = Source(everything)
        with pytest.raises(TooManyDeadLetters):
            consume(first, limit=7)
        second = Source(everything)
        second.hold([everything[first.committed]])
        second.release()
        consume(second, limit=20)
        assert (DeadLetter.objects.count(), saved()) == (9, [b"good"])
        assert ConsumerGroup.objects.get().consecutive_dead_letters == 0

    @pytest.mark.parametrize("batch_size", [1, 2, 5, 500])
    def test_a_handled_message_resets_the_count(self, batch_size: int) -> None:
        values = [b"poison", b"poison", b"good"] * 3 + [b"poison", b"poison"]
        consume(Source(records(*values), batch_size), limit=3)
        assert DeadLetter.objects.count() == 8
        assert ConsumerGroup.objects.get().consecutive_dead_letters == 2

    def test_a_dead_letter_that_is_delivered_again_counts_once(self) -> None:
        for _ in range(3):
            consume(Source(records(b"poison", b"poison")), limit=3)
        assert ConsumerGroup.objects.get().consecutive_dead_letters == 2

    def test_the_limit_holds_for_all_consumers_of_the_group_together(self) -> None:
        ConsumerGroup.objects.create(name=GROUP, consecutive_dead_letters=5)
        ConsumerGroup.objects.create(name="another", consecutive_dead_letters=5)
        source = Source(records(b"poison"))
        with pytest.raises(TooManyDeadLetters):
            consume(source, limit=5)
        assert (DeadLetter.objects.count(), source.committed) == (0, 0)

    def test_a_message_that_the_handler_cannot_save_counts(self) -> None:
        def refuse() -> None:
            raise Poison("in saving")

        source = Source(records(*[b"x"] * 5))
        with pytest.raises(TooManyDeadLetters):
            consume(source, RowHandler({b"x": refuse}), limit=3)
        assert (DeadLetter.objects.count(), source.committed) == (3, 3)

    @pytest.mark.parametrize("batch_size", [1, 3, 500])
    def test_replays_that_fail_again_do_not_count(self, batch_size: int) -> None:
        consume(Source(records(*[b"poison"] * 6)))
        ConsumerGroup.objects.update(consecutive_dead_letters=2)
        source = Source(replays_of_all(), batch_size)
        consume(source, limit=3)
        assert (source.committed, DeadLetter.objects.filter(state="open").count()) == (6, 6)
        assert ConsumerGroup.objects.get().consecutive_dead_letters == 2

    def test_failing_replays_do_not_stop_a_group_at_its_limit(self) -> None:
        consume(Source(records(*[b"poison"] * 3)))
        source = Source(replays_of_all())
        consume(source, limit=3)
        assert source.committed == 3

    def test_replays_that_the_handler_cannot_save_do_not_count(self) -> None:
        def refuse() -> None:
            raise Poison("in saving")

        handler = RowHandler({b"x": refuse})
        consume(Source(records(*[b"x"] * 4)), handler)
        ConsumerGroup.objects.update(consecutive_dead_letters=0)
        consume(Source(replays_of_all()), handler, limit=3)
        assert ConsumerGroup.objects.get().consecutive_dead_letters == 0

    def test_new_poison_among_failed_replays_counts(self) -> None:
        consume(Source(records(*[b"poison"] * 4)))
        ConsumerGroup.objects.update(consecutive_dead_letters=0)
        mixed = [one for replay in replays_of_all() for one in (replay, kafka_record(b"poison"))]
        source = Source([one._replace(offset=at, timestamp=at) for at, one in enumerate(mixed)])
        with pytest.raises(TooManyDeadLetters):
            consume(source, limit=3)
        assert (source.committed, DeadLetter.objects.count()) == (6, 4 + 3)

    def test_a_forged_replay_of_other_content_counts(self) -> None:
        consume(Source(records(b"garbage")), RowHandler({b"garbage": fail(Poison("once"))}))
        letter = DeadLetter.objects.get()
        forged = [("dead-letter-id", str(letter.pk).encode())]
        source = Source([kafka_record(b"poison", offset=at, timestamp=at, headers=forged) for at in range(5)])
        with pytest.raises(TooManyDeadLetters):
            consume(source, limit=3)


def replays_of_all() -> list[Record]:
    """Return the records that the topic gets if all dead letters are replayed."""
    return [
        kafka_record(bytes(letter.value or b""), offset=at, headers=[("dead-letter-id", str(letter.pk).encode())])
        for at, letter in enumerate(DeadLetter.objects.order_by("pk"))
    ]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_mark(*values: bytes) -> None:
    """Store the `DeathMark` of a consumer that died during its first batch. `values` are the values of this batch."""
    quarantine.place_marks(group=GROUP, topic="order-events", records=records(*values))


class TestDeathMarks:
    def test_a_survived_batch_leaves_no_mark(self) -> None:
        marks: list[int] = []
        consume(Source(records(b"a")), RowHandler({b"a": lambda: marks.append(DeathMark.objects.count())}))
        assert marks == [1]
        assert not DeathMark.objects.exists()

    def test_only_the_first_batch_of_a_start_is_marked(self) -> None:
        marks: list[int] = []
        count = {value: lambda: marks.append(DeathMark.objects.count()) for value in (b"a", b"b", b"c")}
        consume(Source(records(b"a", b"b", b"c"), batch_size=1), RowHandler(count))
        assert marks == [1, 0, 0]

    def test_a_message_that_kills_its_process_becomes_a_dead_letter(self) -> None:
        leave_mark(b"a", b"deadly", b"c")
        source = Source(records(b"a", b"deadly", b"c", b"d"))
        consume(source, RowHandler({b"deadly": die}))
        assert saved() == [b"a", b"c", b"d"]
        letter = DeadLetter.objects.get()
        assert (letter.offset, letter.error_message) == (1, "Handling it ended 3 processes, with signal 9")
        assert not DeathMark.objects.exists()

    def test_only_marked_messages_are_tried_one_by_one(self) -> None:
        here: list[bytes] = []
        note = {value: partial(here.append, value) for value in (b"a", b"b", b"c", b"d")}
        leave_mark(b"a", b"b")
        source = Source(records(b"a", b"b", b"c", b"d"))
        consume(source, RowHandler(note))
        # A child process cannot change this process's list.
        assert here == [b"c", b"d"]
        assert (saved(), source.committed) == ([b"a", b"b", b"c", b"d"], 4)
        assert not DeathMark.objects.exists()

    @pytest.mark.parametrize("batch_size", [1, 500])
    def test_a_mark_before_the_first_message_is_replaced(self, batch_size: int) -> None:
        """A consumer may be killed after its commit, before it deletes its mark."""
        here: list[tuple[bytes, list[int]]] = []

        def note(value: bytes) -> None:
            here.append((value, list(DeathMark.objects.values_list("last_offset", flat=True))))

        leave_mark(b"a")
        source = Source(records(b"a", b"b", b"c"), batch_size=batch_size, start=1)
        consume(source, RowHandler({value: partial(note, value) for value in (b"b", b"c")}))
        assert here == ([(b"b", [1]), (b"c", [])] if batch_size == 1 else [(b"b", [2]), (b"c", [2])])
        assert not DeathMark.objects.exists()

    def test_a_deadly_message_does_not_come_again_after_an_outage(self) -> None:
        leave_mark(b"a", b"deadly")
        source = Source(records(b"a", b"deadly", b"c", b"d"))
        consume(source, RowHandler({b"deadly": die, b"c": fail(Outage("away"))}))
        assert (saved(), source.holds) == ([b"a", b"c", b"d"], 1)
        assert DeadLetter.objects.get().offset == 1
        assert not DeathMark.objects.exists()

    def test_messages_behind_marked_ones_are_marked_anew(self) -> None:
        marks: list[int] = []
        note = {b"b": lambda: marks.extend(DeathMark.objects.values_list("last_offset", flat=True))}
        leave_mark(b"a")
        consume(Source(records(b"a", b"b", b"c")), RowHandler(note))
        assert marks == [2]

    def test_repeated_kills_during_a_batch_blame_no_message(self) -> None:
        for _ in range(20):
            leave_mark(b"a", b"b")
        consume(Source(records(b"a", b"b")))
        assert saved() == [b"a", b"b"]
        assert not DeadLetter.objects.exists()

    def test_deaths_are_counted_across_starts(self) -> None:
        leave_mark(b"deadly")
        DeathMark.objects.update(deadly_offset=0, deaths=2)
        consume(Source(records(b"deadly")), RowHandler({b"deadly": die}))
        assert DeadLetter.objects.get().error_message == "Handling it ended 3 processes, with signal 9"

    def test_a_message_that_hangs_counts_as_deadly(self, settings: Settings) -> None:
        settings.CONSUMER_TRIAL_TIMEOUT = 0.05
        leave_mark(b"endless")
        consume(Source(records(b"endless")), RowHandler({b"endless": signal.pause}))
        assert DeadLetter.objects.get().error_message == "Handling it ended 3 processes, with signal 9"

    def test_an_outage_during_a_trial_blames_no_message(self) -> None:
        leave_mark(b"a")

        class OnlyHere(RowHandler):
            def save(self, events: Sequence[bytes]) -> None:
                if os.getpid() != parent:
                    raise Outage("away")
                super().save(events)

        parent = os.getpid()
        source = Source(records(b"a"))
        consume(source, OnlyHere(), stopping=lambda: source.holds == 3 or source.read_to_the_end())
        assert source.holds == 3
        assert not DeadLetter.objects.exists()
        assert DeathMark.objects.get().deaths == 0

    def test_a_stop_leaves_marked_messages_to_the_next_start(self) -> None:
        leave_mark(b"a", b"b", b"c")
        source = Source(records(b"a", b"b", b"c"))
        consume(source, stopping=lambda: bool(saved()))
        assert (saved(), source.committed) == ([b"a"], 1)
        assert DeathMark.objects.exists()

    def test_poison_among_marked_messages_stops_at_the_limit(self) -> None:
        leave_mark(*[b"poison"] * 5)
        source = Source(records(*[b"poison"] * 5))
        with pytest.raises(TooManyDeadLetters):
            consume(source, limit=3)
        assert (DeadLetter.objects.count(), source.committed) == (3, 3)

    def test_a_limit_that_others_reached_commits_no_marked_message(self) -> None:
        ConsumerGroup.objects.create(name=GROUP, consecutive_dead_letters=3)
        leave_mark(b"poison")
        source = Source(records(b"poison"))
        with pytest.raises(TooManyDeadLetters, match="after 3 dead letters in a row of group group"):
            consume(source, limit=3)
        assert (DeadLetter.objects.count(), source.committed) == (0, 0)

    def test_a_suspect_among_marked_messages_has_its_attempts(self) -> None:
        def always() -> None:
            raise KeyError("colour")

        leave_mark(b"a", b"b")
        source = Source(records(b"a", b"b"))
        consume(source, RowHandler({b"b": always}))
        assert source.holds == 2
        assert DeadLetter.objects.get().error_message == "'colour'"
