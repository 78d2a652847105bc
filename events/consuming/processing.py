"""From a batch of records to what a subscription saves, and to dead letters where that is impossible."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Generic, NamedTuple

from django.conf import settings
from django.db import transaction

from events.consuming.dead_letter_limit import Streak, TooManyDeadLetters
from events.consuming.dead_letters import close_replayed, named_event_type, record_dead_letter
from events.correlation import about
from events.kafka import Record, Unreadable
from events.messages import Message
from events.observing import metrics, tracing
from events.outbox.publisher import publish
from events.subscriptions import EventT, Subscription
from events.troubles import Poison, Suspect, kind_of

logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How much of a batch was worked off."""

    done: int
    """Number of records, counted from the first one, that are handled or dead letters now."""
    at_limit: bool
    """Whether processing stopped at the limit of dead letters in a row."""


class Processor(Generic[EventT]):
    """Processes batches of records for one subscription. It knows nothing of offsets."""

    def __init__(self, subscription: Subscription[EventT], *, max_consecutive_dead_letters: int) -> None:
        self._subscription = subscription
        self._group = subscription.group
        self._limit = max_consecutive_dead_letters
        self._failed_attempts: Counter[tuple[int, int]] = Counter()
        """By partition and offset, of suspects."""

    def process(self, records: Sequence[Record]) -> Progress:
        """Handle `records` in one transaction. Where their data makes it fail, halve them until the culprit is alone.

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
                return self._set_aside_suspect(records[0], error)
            middle = len(records) // 2
            first = self.process(records[:middle])
            if first.at_limit:
                return first
            second = self.process(records[middle:])
            return Progress(first.done + second.done, second.at_limit)

    def _save(self, records: Sequence[Record]) -> Progress:
        begun = tracing.now()
        streak = Streak(group=self._group, limit=self._limit)
        events: list[EventT] = []
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
        # In this order: a process that waits for the streak must not hold what the streak's holder waits for.
        streak.save()
        if events:
            saving = tracing.now()
            self._handle(events)
            close_replayed(decoded, group=self._group)
            if tracing.is_on():
                transaction.on_commit(lambda: self._trace(decoded, begun, saving), robust=True)
        return Progress(records.index(record) + 1 if at_limit else len(records), at_limit)

    def _handle(self, events: list[EventT]) -> None:
        """Pass over events of types that the group does not want, and hand the others to the subscription."""
        wanted = [event for event in events if event.event_type in self._subscription.wanted]
        new = self._subscription.save(wanted) if wanted else []
        transaction.on_commit(
            lambda: metrics.count_consumed(events=events, wanted=wanted, new=new, saved_at=time.time()), robust=True
        )

    def _trace(self, records: Sequence[Record], begun: int, saving: int) -> None:
        tracing.trace_processed(records=records, group=self._group, begun=begun, saving=saving)

    def _decode(self, record: Record) -> EventT:
        if isinstance(record.value, Unreadable):
            raise record.value.error
        return self._subscription.decode(record.value)

    def count_failed_attempt(self, record: Record) -> int:
        """Count one more failure of a suspect record, and return how many there were."""
        self._failed_attempts[record.partition, record.offset] += 1
        return self._failed_attempts[record.partition, record.offset]

    def forget_failed_attempts(self) -> None:
        self._failed_attempts.clear()

    def _set_aside_suspect(self, record: Record, error: Exception) -> Progress:
        """Make `record`, which has just failed alone, a dead letter. A suspect gets its other attempts first."""
        if kind_of(error) == "suspect":
            attempt = self.count_failed_attempt(record)
            if attempt < settings.CONSUMER_SUSPECT_ATTEMPTS:
                raise Suspect(
                    f"{position(record)} failed, attempt {attempt}: {type(error).__name__}: {error}"
                ) from error
        return self.set_aside(record, error)

    def set_aside(self, record: Record, error: Exception) -> Progress:
        """Make `record` a dead letter, in a transaction of its own."""
        with transaction.atomic():
            streak = Streak(group=self._group, limit=self._limit)
            at_limit = self._dead_letter(record, error, streak)
            streak.save()
        return Progress(1, at_limit)

    def _dead_letter(self, record: Record, error: Exception, streak: Streak) -> bool:
        """Keep `record` as a dead letter in this transaction; return whether it is the last one allowed in a row."""
        kept = record_dead_letter(record=record, error=error, group=self._group)
        if not kept.is_news:
            return False
        transaction.on_commit(lambda: self._report(record, error, kept.copy), robust=True)
        # A replay that fails again says nothing new about what the topic brings.
        return not kept.is_reopened and streak.dead_letter()

    def _report(self, record: Record, error: Exception, copy: Message | None) -> None:
        reason = type(error).__name__
        with about(record.headers):
            logger.error("Dead letter %s: %s: %s", position(record), reason, error)
        event_type = named_event_type(record)
        label = event_type if event_type in self._subscription.topic.event_types else metrics.OTHER
        metrics.consumed_total.labels(label, "dead").inc()
        metrics.dead_letters_total.labels(record.topic, reason).inc()
        if tracing.is_on():
            tracing.trace_failed(record=record, group=self._group, error=error)
        if copy is not None:
            publish([copy])


def position(record: Record) -> str:
    """Return where `record` stands, as `topic[partition]@offset`, for people."""
    return f"{record.topic}[{record.partition}]@{record.offset}"
