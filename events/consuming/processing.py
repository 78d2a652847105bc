"""Process a batch of records: hand events to the subscription, and make dead letters of what cannot be handled."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Generic, NamedTuple

from django.conf import settings
from django.db import transaction

from events.consuming.dead_letter_limit import ConsecutiveDeadLetters, TooManyDeadLetters
from events.consuming.dead_letters import close_replayed, event_type_of, record_dead_letter
from events.correlation import log_context
from events.kafka import Record, Unreadable
from events.observing import metrics, tracing
from events.outbox.publisher import publish
from events.subscriptions import EventT, Subscription
from events.troubles import Poison, Suspect, kind_of
from events.wire.messages import Message

logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """The result of processing a batch of records."""

    done: int
    """Number of records, from the start of the batch, that are handled or dead-lettered."""
    at_limit: bool
    """Whether processing stopped at the limit of consecutive dead letters."""


class Processor(Generic[EventT]):
    """Processes batches of records for one subscription. It does not commit offsets."""

    def __init__(self, subscription: Subscription[EventT], *, max_consecutive_dead_letters: int) -> None:
        self._subscription = subscription
        self._group = subscription.group
        self._published = frozenset(subscription.topic.event_types)
        self.limit = max_consecutive_dead_letters
        self._failed_attempts: Counter[tuple[int, int]] = Counter()
        """Number of failures for an unknown reason, by (partition, offset) of the record."""

    def process(self, records: Sequence[Record]) -> Progress:
        """Handle `records` in one transaction. If a record makes it fail, halve the batch until that record is alone.

        Raises:
            django.db.Error, Outage: a dependency failed. The failing part is not saved; the caller may retry the batch.
            Suspect: a message failed for an unknown reason, and has attempts left. Records before it are saved; the
                caller may retry the batch.
            TooManyDeadLetters: other consumers have brought the group to its limit of consecutive dead letters.
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
                return self._retry_or_dead_letter(records[0], error)
            middle = len(records) // 2
            first = self.process(records[:middle])
            if first.at_limit:
                return first
            second = self.process(records[middle:])
            return Progress(first.done + second.done, second.at_limit)

    def _save(self, records: Sequence[Record]) -> Progress:
        begun = tracing.now()
        consecutive = ConsecutiveDeadLetters(group=self._group, limit=self.limit)
        events: list[EventT] = []
        decoded: list[Record] = []
        at_limit = False
        for record in records:
            try:
                events.append(self._decode(record))
                decoded.append(record)
                consecutive.reset()
            except Poison as poison:
                at_limit = self._record_dead_letter(record, poison, consecutive)
                if at_limit:
                    break
        # Store the count first: its row is locked before any row of the subscription, so two consumers cannot deadlock.
        consecutive.save()
        if events:
            saving = tracing.now()
            self._handle(events)
            close_replayed(decoded, group=self._group)
            if tracing.is_on():
                transaction.on_commit(lambda: self._trace(decoded, begun, saving), robust=True)
        return Progress(records.index(record) + 1 if at_limit else len(records), at_limit)

    def _handle(self, events: list[EventT]) -> None:
        """Hand to the subscription those events whose types the group wants."""
        wanted = [event for event in events if event.event_type in self._subscription.wanted]
        new = self._subscription.save(wanted) if wanted else []
        transaction.on_commit(
            lambda: metrics.count_consumed(group=self._group, events=events, wanted=wanted, new=new), robust=True
        )
        if self._subscription.measures_latency:
            transaction.on_commit(
                lambda: metrics.observe_latencies(new, group=self._group, saved_at=time.time()), robust=True
            )

    def _trace(self, records: Sequence[Record], begun: int, saving: int) -> None:
        tracing.trace_processed(records=records, group=self._group, begun=begun, saving=saving)

    def _decode(self, record: Record) -> EventT:
        if isinstance(record.value, Unreadable):
            raise record.value.error
        event = self._subscription.decode_record(record.value, partition=record.partition)
        if event.event_type not in self._published:
            raise Poison(
                f"The topic {self._subscription.topic.name} has no event type {event.event_type}: add it to the "
                "topic's event_types, and replay this letter"
            )
        return event

    def count_failed_attempt(self, record: Record) -> int:
        """Count in memory a failure of `record` for an unknown reason. Return the number of such failures so far."""
        self._failed_attempts[record.partition, record.offset] += 1
        return self._failed_attempts[record.partition, record.offset]

    def forget_failed_attempts(self) -> None:
        self._failed_attempts.clear()

    def _retry_or_dead_letter(self, record: Record, error: Exception) -> Progress:
        """Make `record`, which failed as the only record of its batch, a dead letter.

        Raises Suspect if the cause is unknown and attempts are left.
        """
        if kind_of(error) == "suspect":
            attempt = self.count_failed_attempt(record)
            if attempt < settings.CONSUMER_SUSPECT_ATTEMPTS:
                raise Suspect(
                    f"{position(record)} failed, attempt {attempt}: {type(error).__name__}: {error}"
                ) from error
        return self.make_dead_letter(record, error)

    def make_dead_letter(self, record: Record, error: Exception) -> Progress:
        """Make `record` a dead letter in a separate transaction. Return a `Progress` of this one record.

        Raises TooManyDeadLetters if other consumers have brought the group to its limit.
        """
        with transaction.atomic():
            consecutive = ConsecutiveDeadLetters(group=self._group, limit=self.limit)
            at_limit = self._record_dead_letter(record, error, consecutive)
            consecutive.save()
        return Progress(1, at_limit)

    def _record_dead_letter(self, record: Record, error: Exception, consecutive: ConsecutiveDeadLetters) -> bool:
        """Make `record` a dead letter in the current transaction.

        Return whether it brings the group to its limit of consecutive dead letters.
        """
        letter = record_dead_letter(record=record, error=error, group=self._group)
        if not letter.is_new_or_reopened:
            return False
        transaction.on_commit(lambda: self._report(record, error, letter.copy), robust=True)
        # A replay that fails does not count, because it says nothing about the new messages of the topic.
        return not letter.is_reopened and consecutive.add()

    def _report(self, record: Record, error: Exception, copy: Message | None) -> None:
        reason = type(error).__name__
        with log_context(record.headers):
            logger.error("Dead letter %s: %s: %s", position(record), reason, error)
        event_type = event_type_of(record)
        label = event_type if event_type in self._subscription.topic.event_types else metrics.OTHER
        metrics.consumed_total.labels(self._group, label, "dead").inc()
        metrics.dead_letters_total.labels(self._group, record.topic, reason).inc()
        if tracing.is_on():
            tracing.trace_failed(record=record, group=self._group, error=error)
        if copy is not None:
            publish([copy])


def position(record: Record) -> str:
    """Return the position of `record` as `topic[partition]@offset`."""
    return f"{record.topic}[{record.partition}]@{record.offset}"
