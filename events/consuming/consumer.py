"""The consumer: poll a batch, process it in one transaction, commit exactly its offsets."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Generic

from django.conf import settings
from django.db import Error, connection, reset_queries
from django.template.defaultfilters import pluralize

from events.consuming.dead_letter_limit import TooManyDeadLetters
from events.consuming.processing import Processor
from events.consuming.quarantine import Quarantine
from events.kafka import Record
from events.kafka.reading_ahead import ReadAhead
from events.observing import metrics
from events.subscriptions import EventT, Subscription
from events.troubles import Outage, Suspect

logger = logging.getLogger(__name__)

POLL_TIMEOUT_S = 1.0
"""Longest poll, in seconds. The client has no wakeup(), so the consumer notices a signal only after a poll."""
DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS = 1000
"""The default of `--max-consecutive-dead-letters`."""


class EventConsumer(Generic[EventT]):
    """Handles the batches that one member of a consumer group reads."""

    def __init__(
        self,
        *,
        source: ReadAhead,
        subscription: Subscription[EventT],
        stopping: Callable[[], bool],
        max_consecutive_dead_letters: int = DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS,
    ) -> None:
        self._source = source
        self._subscription = subscription
        self._stopping = stopping
        self._limit = max_consecutive_dead_letters
        self._processor = Processor(subscription, max_consecutive_dead_letters=max_consecutive_dead_letters)
        self._quarantine = Quarantine(self._processor, group=subscription.group)
        self._committed: list[Record] = []
        """The records of the current batch whose commit has begun. A thread of `ReadAhead` finishes it."""

    def run(self) -> None:
        """Consume until `stopping` returns True.

        A batch in progress is finished first. If its records are handled one by one, only the current one is finished.
        The commit of the last offsets may still be in progress at the end. The caller finishes it by closing the
        source.

        A batch that fails is retried with backoff: without a limit after an `Outage`, a few times after a `Suspect`.
        Meanwhile its offsets stay uncommitted, the partitions are paused, and the consumer goes on polling so that it
        stays in the group.

        Raises:
            TooManyDeadLetters: the group has reached its limit of consecutive dead letters. The records up to and
                including the last dead letter of this consumer are saved.
        """
        subscription = self._subscription
        metrics.declare(
            subscription.topic.event_types, group=subscription.group, measures_latency=subscription.measures_latency
        )
        failures = 0
        while not self._stopping():
            records = self._source.poll(timeout=POLL_TIMEOUT_S)
            if not records:
                continue
            arrived = time.monotonic()
            reset_queries()  # With DEBUG on, Django keeps every statement.
            self._committed = []
            try:
                self._handle(records)
            except (Error, Outage, Suspect) as trouble:
                failures += 1
                self._wait_and_rewind(self._uncommitted(records), trouble, failures)
            else:
                failures = 0
                self._processor.forget_failed_attempts()
                metrics.batch_seconds.labels(self._subscription.group).observe(time.monotonic() - arrived)
                metrics.batch_size.labels(self._subscription.group).observe(len(records))

    def _handle(self, records: Sequence[Record]) -> None:
        """Process and commit `records`.

        An earlier consumer may have left a `DeathMark` on a partition. The records that the mark covers are handled one
        by one, and then the others of this partition as a batch.
        """
        marks = self._quarantine.marks_on(records)
        self._handle_batch([record for record in records if record.partition not in marks])
        for partition, mark in marks.items():
            of_partition = [record for record in records if record.partition == partition]
            for record in self._quarantine.one_by_one(of_partition, mark):
                if self._stopping():
                    return
                at_limit = self._quarantine.try_alone(record, mark)
                self._commit([record], at_limit=at_limit)
            if self._stopping():
                return
            self._handle_batch([record for record in of_partition if not mark.covers(record.offset)])

    def _handle_batch(self, records: Sequence[Record]) -> None:
        if records:
            with self._quarantine.marking(records):
                progress = self._processor.process(records)
                self._commit(records[: progress.done], at_limit=progress.at_limit)

    def _commit(self, records: Sequence[Record], *, at_limit: bool) -> None:
        self._source.commit(records)
        self._committed += records
        if at_limit:
            raise TooManyDeadLetters(group=self._subscription.group, count=self._limit)

    def _uncommitted(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records of a failed batch that are not committed, and so must be handled again.

        A committed record is left out, because it may have been tried alone as a deadly one, and must not come again in
        a batch. If all are committed, only the deletion of a `DeathMark` has failed. Then return the last one, so that
        the deletion is tried again.
        """
        committed = {(record.partition, record.offset) for record in self._committed}
        return [one for one in records if (one.partition, one.offset) not in committed] or records[-1:]

    def _wait_and_rewind(self, records: Sequence[Record], trouble: Exception, failures: int) -> None:
        """Go back to the first of `records` on each partition, and wait with all partitions paused.

        The wait grows with `failures`, up to `CONSUMER_RETRY_LAST`. It ends early when the consumer has to stop.
        """
        longest = min(settings.CONSUMER_RETRY_FIRST * 2 ** min(failures - 1, 30), settings.CONSUMER_RETRY_LAST)
        pause = longest * random.uniform(0.5, 1)  # noqa: S311
        said = f"{len(records)} record{pluralize(len(records))} again in {pause:.1f} s"
        logger.warning("%s: %s", said, str(trouble).strip())
        connection.close()
        self._source.hold(records)
        deadline = time.monotonic() + pause
        while not self._stopping() and (left := deadline - time.monotonic()) > 0:
            # A rebalance may assign partitions that are not paused yet.
            newly_assigned = self._source.poll(timeout=min(left, POLL_TIMEOUT_S))
            if newly_assigned:
                self._source.hold(newly_assigned)
        self._source.release()
