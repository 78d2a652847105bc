"""The consumer: poll, decode, save in one transaction, commit exactly these offsets."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from django.conf import settings
from django.db import Error, connection, reset_queries, transaction
from django.template.defaultfilters import pluralize

from events.consuming import death_marks
from events.consuming.dead_letter_limit import Streak, TooManyDeadLetters
from events.consuming.dead_letters import close_replayed, named_event_type, record_dead_letter
from events.correlation import about
from events.kafka import Consumer, Record, Unreadable
from events.messages import Message
from events.models import DeathMark
from events.observing import metrics, tracing
from events.outbox.publisher import publish
from events.troubles import Outage, Poison, Suspect, kind_of

logger = logging.getLogger(__name__)

POLL_TIMEOUT = 1.0
"""Seconds; a signal is noticed within this time, because the client has no wakeup()."""

Event = TypeVar("Event")


class Handler(Protocol[Event]):
    """What an application does with the events of a topic."""

    def decode(self, record: Record) -> Event:
        """Raises Poison where the record is no event."""

    def save(self, events: Sequence[Event]) -> None:
        """Save what follows from `events`, in the caller's transaction.

        Must change nothing for events it has saved before: every event may come again. What its failures mean, says
        `events.troubles`.
        """


class Progress(NamedTuple):
    """How far a batch was worked off."""

    done: int
    """Records, from the first one on, that are saved or dead letters now."""
    at_limit: bool
    """Whether that stopped at the limit of dead letters in a row."""


class Trial(IntEnum):
    """How a child that tried one message ended; anything else is a death."""

    DONE = 0
    OUTAGE = 64
    SUSPECT = 65
    AT_LIMIT = 66


@dataclass(kw_only=True)
class EventConsumer(Generic[Event]):
    """Works one consumer's batches off. See `run`."""

    source: Consumer
    handler: Handler[Event]
    group: str
    stopping: Callable[[], bool]
    max_consecutive_dead_letters: int = 1000
    event_types: Collection[str] = ()
    """Those that metrics tell apart."""

    _proven: set[int] = field(default_factory=set)
    """Partitions of which this process has survived a batch."""
    _marked: set[int] = field(default_factory=set)
    """Partitions whose mark is our own."""
    _attempts: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Failed attempts by partition and offset, of suspects."""

    def run(self) -> None:
        """Consume until `stopping`; a batch that has begun is finished and committed.

        An outage is retried for ever, a suspect a few times: the offsets stay uncommitted, the partitions are held,
        and polling goes on so that the group keeps this member.

        Raises:
            TooManyDeadLetters: the limit is reached; everything up to it is committed.
        """
        metrics.declare(self.event_types)
        failures = 0
        while not self.stopping():
            records = self.source.poll(timeout=POLL_TIMEOUT)
            if not records:
                continue
            arrived = time.monotonic()
            reset_queries()  # With DEBUG on, Django keeps every statement.
            try:
                self._handle(records)
            except (Error, Outage, Suspect) as trouble:
                failures += 1
                self._sit_out(records, trouble, failures)
            else:
                failures = 0
                self._attempts.clear()
                metrics.batch_seconds.observe(time.monotonic() - arrived)
                metrics.batch_size.observe(len(records))

    def _handle(self, records: Sequence[Record]) -> None:
        """Process a batch and commit it; with care where a consumer may have died of it before."""
        fresh = {record.partition for record in records} - self._proven
        if not fresh:
            self._process_and_commit(records)
            return
        topic = records[0].topic
        marks = death_marks.left_behind(group=self.group, topic=topic, partitions=fresh - self._marked)
        unsuspected = [record for record in records if record.partition not in marks]
        if unsuspected:
            self._marked |= fresh - set(marks)
            first = [record for record in unsuspected if record.partition in fresh]
            death_marks.place(group=self.group, topic=topic, records=first)
            self._process_and_commit(unsuspected)
            self._lift_marks(topic, self._marked & fresh)
        for partition, mark in marks.items():
            self._try_one_by_one([record for record in records if record.partition == partition], mark)

    def _process_and_commit(self, records: Sequence[Record]) -> None:
        progress = self.process(records)
        self._commit(records[: progress.done], at_limit=progress.at_limit)

    def _commit(self, records: Sequence[Record], *, at_limit: bool) -> None:
        self.source.commit(records)
        if at_limit:
            raise TooManyDeadLetters(group=self.group, count=self.max_consecutive_dead_letters)

    def _lift_marks(self, topic: str, partitions: set[int]) -> None:
        death_marks.lift(group=self.group, topic=topic, partitions=partitions)
        self._proven |= partitions
        self._marked -= partitions

    def _try_one_by_one(self, records: Sequence[Record], mark: DeathMark) -> None:
        logger.warning("A consumer ended with %s in hand: its messages are tried one by one", mark)
        for record in records:
            if self.stopping():
                return
            at_limit = self._try(record, mark)
            self._commit([record], at_limit=at_limit)
        if records[-1].offset >= mark.last_offset:
            self._lift_marks(mark.topic, {mark.partition})

    def _try(self, record: Record, mark: DeathMark) -> bool:
        """Process `record` in a child process, until it is done or has killed often enough; whether at the limit.

        Raises Outage, Suspect.
        """
        while True:
            ended = death_marks.run_in_child(lambda: self._trial(record))
            if ended in (Trial.DONE, Trial.AT_LIMIT):
                return ended == Trial.AT_LIMIT
            if ended == Trial.OUTAGE:
                raise Outage("tried in a child process, see above")
            if ended == Trial.SUSPECT:
                self._attempts[record.partition, record.offset] += 1
                raise Suspect("tried in a child process, see above")
            deaths = death_marks.count_death(mark, record)
            how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
            with about(record.headers):
                so_far = f"{deaths} time{pluralize(deaths)} so far"
                logger.error("Handling %s ended its process with %s, %s", _position(record), how, so_far)
            if deaths >= settings.CONSUMER_DEATHS:
                processes = f"{deaths} process{pluralize(deaths, 'es')}"
                return self._set_aside(record, Poison(f"Handling it ended {processes}, with {how}")).at_limit

    def _trial(self, record: Record) -> Trial:
        try:
            return Trial.AT_LIMIT if self.process([record]).at_limit else Trial.DONE
        except Suspect as suspect:
            logger.warning("%s", suspect)
            return Trial.SUSPECT
        except (Error, Outage) as outage:
            logger.warning("%s", str(outage).strip())
            return Trial.OUTAGE
        except TooManyDeadLetters:
            return Trial.AT_LIMIT

    def process(self, records: Sequence[Record]) -> Progress:
        """Turn `records` into what the handler saves, and into dead letters where that is impossible.

        If a batch fails for a reason of its data, it is halved until the culprit stands alone.

        Raises:
            django.db.Error, Outage: something is away. Nothing of the failing part is saved; all may be tried again.
            Suspect: a message failed that has attempts left. All before it is saved; all may be tried again.
            TooManyDeadLetters: other consumers of the group have reached the limit.
        """
        try:
            with transaction.atomic():
                return self._save(records)
        except TooManyDeadLetters:
            raise
        except Exception as error:
            if kind_of(error) == "outage":
                raise
            if len(records) == 1:
                return self._doubt(records[0], error)
            middle = len(records) // 2
            first = self.process(records[:middle])
            if first.at_limit:
                return first
            second = self.process(records[middle:])
            return Progress(first.done + second.done, second.at_limit)

    def _save(self, records: Sequence[Record]) -> Progress:
        begun = tracing.now()
        streak = Streak(group=self.group, limit=self.max_consecutive_dead_letters)
        events: list[Event] = []
        decoded: list[Record] = []
        at_limit = False
        for record in records:
            try:
                events.append(self._decode(record))
                decoded.append(record)
                streak.handled()
            except Poison as poison:
                at_limit = self._dead_letter(record, poison, streak)
                if at_limit:
                    break
        # In this order, because whoever waits for the streak must not hold what its holder waits for.
        streak.save()
        if events:
            saving = tracing.now()
            self.handler.save(events)
            close_replayed(decoded, group=self.group)
            if tracing.is_on():
                transaction.on_commit(lambda: self._trace(decoded, begun, saving), robust=True)
        return Progress(records.index(record) + 1 if at_limit else len(records), at_limit)

    def _trace(self, records: Sequence[Record], begun: int, saving: int) -> None:
        tracing.trace_processed(
            records=records, group=self.group, handler=type(self.handler).__name__, begun=begun, saving=saving
        )

    def _decode(self, record: Record) -> Event:
        if isinstance(record.value, Unreadable):
            raise record.value.error
        return self.handler.decode(record)

    def _doubt(self, record: Record, error: Exception) -> Progress:
        """Set `record` aside, which has just failed alone; a suspect gets its other attempts first."""
        if kind_of(error) == "suspect":
            self._attempts[record.partition, record.offset] += 1
            attempt = self._attempts[record.partition, record.offset]
            if attempt < settings.CONSUMER_SUSPECT_ATTEMPTS:
                raise Suspect(
                    f"{_position(record)} failed, attempt {attempt}: {type(error).__name__}: {error}"
                ) from error
        return self._set_aside(record, error)

    def _set_aside(self, record: Record, error: Exception) -> Progress:
        with transaction.atomic():
            streak = Streak(group=self.group, limit=self.max_consecutive_dead_letters)
            at_limit = self._dead_letter(record, error, streak)
            streak.save()
        return Progress(1, at_limit)

    def _dead_letter(self, record: Record, error: Exception, streak: Streak) -> bool:
        """Keep `record` as a dead letter in this transaction; whether it is the last one allowed in a row."""
        kept = record_dead_letter(record=record, error=error, group=self.group)
        if not kept.is_news:
            return False
        transaction.on_commit(lambda: self._tell(record, error, kept.copy), robust=True)
        # A replay that fails again says nothing new about what the topic brings.
        return not kept.is_reopened and streak.dead_letter()

    def _tell(self, record: Record, error: Exception, copy: Message | None) -> None:
        reason = type(error).__name__
        with about(record.headers):
            logger.error("Dead letter %s: %s: %s", _position(record), reason, error)
        event_type = named_event_type(record)
        label = event_type if event_type in self.event_types else metrics.OTHER
        metrics.consumed_total.labels(label, "dead").inc()
        metrics.dead_letters_total.labels(record.topic, reason).inc()
        if tracing.is_on():
            tracing.trace_failed(record=record, group=self.group, error=error)
        if copy is not None:
            publish([copy])

    def _sit_out(self, records: Sequence[Record], trouble: Exception, failures: int) -> None:
        """Hold all partitions for a while, longer with every failure, and go on before `records`."""
        longest = min(settings.CONSUMER_RETRY_FIRST * 2 ** min(failures - 1, 30), settings.CONSUMER_RETRY_LAST)
        pause = longest * random.uniform(0.5, 1)  # noqa: S311
        said = f"{len(records)} record{pluralize(len(records))} again in {pause:.1f} s"
        logger.warning("%s: %s", said, str(trouble).strip())
        connection.close()
        self.source.hold(records)
        deadline = time.monotonic() + pause
        while not self.stopping() and (left := deadline - time.monotonic()) > 0:
            # A rebalance hands out partitions that are not held yet.
            newly_assigned = self.source.poll(timeout=min(left, POLL_TIMEOUT))
            if newly_assigned:
                self.source.hold(newly_assigned)
        self.source.release()


def _position(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"
