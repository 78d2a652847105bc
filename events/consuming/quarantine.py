"""The quarantine finds a message that kills the process that handles it.

Such a message would kill every later consumer, too. So a consumer stores a mark (a row of `DeathMark`) before the first
batch of each partition after its start, and deletes the mark after that batch. A consumer that finds a mark at its
start handles the marked messages one by one, each in a child process. If the child dies, its message killed it. If a
person kills the consumer, only a mark is left: no child dies, and no message becomes a dead letter. A healthy consumer
writes one mark per partition and start.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from django.conf import settings
from django.db import Error, connections
from django.template.defaultfilters import pluralize

from events.consuming.dead_letter_limit import TooManyDeadLetters
from events.consuming.processing import Processor, position
from events.correlation import log_context
from events.kafka import Record
from events.models import DeathMark
from events.troubles import Outage, Poison, Suspect

logger = logging.getLogger(__name__)

CHILD_POLL_S = 0.005
"""Seconds between two checks of a child process."""


class Trial(IntEnum):
    """Exit codes of a child process that tried one message. Any other exit code counts as a death."""

    DONE = 0
    OUTAGE = 64
    SUSPECT = 65
    AT_LIMIT = 66
    """Exit code if the message became a dead letter and the group reached its limit of consecutive dead letters."""
    BEYOND_LIMIT = 67
    """Exit code if the message was not handled.

    Other consumers had brought the group to its limit of consecutive dead letters.
    """


class Quarantine:
    """Finds messages that kill the process that handles them.

    While a consumer handles its first batch from a partition, a `DeathMark` for this batch is stored. If the consumer's
    process ends during the batch, the mark remains. The next consumer of the partition finds the mark, and tries each
    marked message in a child process.
    """

    def __init__(self, processor: Processor[Any], *, group: str) -> None:
        self._processor = processor
        self._group = group
        self._proven: set[int] = set()
        """Partitions that need no further `DeathMark`, because this process has handled a marked batch of each."""
        self._marked: set[int] = set()
        """Partitions for which this process has stored a `DeathMark` that it has not deleted."""

    def marks_on(self, records: Sequence[Record]) -> dict[int, DeathMark]:
        """Return the death marks that other consumers have left on the partitions of `records`, by partition number.

        Such a consumer ended while it handled its first batch from the partition. A mark that covers none of `records`
        is left out, because its consumer ended after it had committed the batch.
        """
        unknown = {record.partition for record in records} - self._proven - self._marked
        if not unknown:
            return {}
        marks = leftover_marks(group=self._group, topic=records[0].topic, partitions=unknown)
        covered = {
            one.partition for one in records if one.partition in marks and marks[one.partition].covers(one.offset)
        }
        return {partition: mark for partition, mark in marks.items() if partition in covered}

    @contextmanager
    def marking(self, records: Sequence[Record]) -> Iterator[None]:
        """Within the block, keep a `DeathMark` on each partition of `records` that is new to this process.

        A partition is new until the process has handled a batch from it. The marks are deleted only if the block
        succeeds. If the process ends within the block, the next consumer finds them.
        """
        topic = records[0].topic
        unproven = {record.partition for record in records} - self._proven
        if unproven:
            self._marked |= unproven
            first = [record for record in records if record.partition in unproven]
            place_marks(group=self._group, topic=topic, records=first)
        yield
        if unproven:
            self._lift(topic, unproven)

    def one_by_one(self, records: Sequence[Record], mark: DeathMark) -> Iterator[Record]:
        """Yield each of `records` that `mark` covers, so that the caller tries it alone.

        All of `records` must be from the partition of `mark`. If they reach the last offset of the mark, the mark is
        deleted after the caller has tried the last one that it covers.
        """
        logger.warning("A consumer ended while it handled %s: its messages are tried one by one", mark)
        yield from (record for record in records if mark.covers(record.offset))
        if records[-1].offset >= mark.last_offset:
            lift_marks(group=self._group, topic=mark.topic, partitions={mark.partition})

    def _lift(self, topic: str, partitions: set[int]) -> None:
        lift_marks(group=self._group, topic=topic, partitions=partitions)
        self._proven |= partitions
        self._marked -= partitions

    def try_alone(self, record: Record, mark: DeathMark) -> bool:
        """Process `record` in a child process, and again in a new one after each child that dies.

        A record that has killed `CONSUMER_DEATHS` children, those of earlier consumers included, becomes a dead letter.
        Return True if the record became a dead letter and brought the group to its limit of consecutive dead letters.

        After an exception, the record has not been handled.

        Raises:
            Outage: the child could not use the database or another dependency.
            Suspect: the record failed in the child for an unknown reason, and has attempts left.
            TooManyDeadLetters: other consumers had brought the group to its limit.
        """
        while True:
            ended = run_in_child(lambda: self._trial(record))
            if ended in (Trial.DONE, Trial.AT_LIMIT):
                return ended == Trial.AT_LIMIT
            if ended == Trial.OUTAGE:
                raise Outage("tried in a child process, see above")
            if ended == Trial.BEYOND_LIMIT:
                raise TooManyDeadLetters(group=self._group, count=self._processor.limit)
            if ended == Trial.SUSPECT:
                self._processor.count_failed_attempt(record)
                raise Suspect("tried in a child process, see above")
            deaths = count_death(mark, record)
            how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
            with log_context(record.headers):
                so_far = f"{deaths} time{pluralize(deaths)} so far"
                logger.error("Handling %s ended its process with %s, %s", position(record), how, so_far)
            if deaths >= settings.CONSUMER_DEATHS:
                processes = f"{deaths} process{pluralize(deaths, 'es')}"
                poison = Poison(f"Handling it ended {processes}, with {how}")
                return self._processor.make_dead_letter(record, poison).at_limit

    def _trial(self, record: Record) -> Trial:
        try:
            return Trial.AT_LIMIT if self._processor.process([record]).at_limit else Trial.DONE
        except Suspect as suspect:
            logger.warning("%s", suspect)
            return Trial.SUSPECT
        except (Error, Outage) as outage:
            logger.warning("%s", str(outage).strip())
            return Trial.OUTAGE
        except TooManyDeadLetters:
            return Trial.BEYOND_LIMIT


def leftover_marks(*, group: str, topic: str, partitions: Iterable[int]) -> dict[int, DeathMark]:
    """Return the death marks of `group` that are stored for `partitions` of the topic, by partition.

    The consumer that left a death mark has probably ended while it handled the marked records.
    """
    marks = DeathMark.objects.filter(group=group, topic=topic, partition__in=list(partitions))
    return {mark.partition: mark for mark in marks}


def place_marks(*, group: str, topic: str, records: Sequence[Record]) -> None:
    """Store a `DeathMark` for each partition of `records`, up to and including the last of `records` in this partition.

    If the group already has a mark on the partition, only the mark's last offset changes.
    """
    last_offsets = {record.partition: record.offset for record in records}
    DeathMark.objects.bulk_create(
        [
            DeathMark(group=group, topic=topic, partition=partition, last_offset=offset)
            for partition, offset in last_offsets.items()
        ],
        update_conflicts=True,
        unique_fields=["group", "topic", "partition"],
        update_fields=["last_offset"],
    )


def lift_marks(*, group: str, topic: str, partitions: Iterable[int]) -> None:
    """Delete the death marks of `group` on `partitions`. Call it after the marked messages have been handled.

    A death mark (a row of `DeathMark`) covers messages that may kill the consumer that handles them.
    """
    DeathMark.objects.filter(group=group, topic=topic, partition__in=list(partitions)).delete()


def delete_all_marks() -> None:
    """Delete the death marks of all groups, because the broker has lost its records.

    A death mark names, by their offsets, messages that may kill a consumer. New messages will get the same offsets.
    """
    DeathMark.objects.all().delete()


def count_death(mark: DeathMark, record: Record) -> int:
    """Add 1 to the deaths in `mark`, because `record` has killed a process, and save `mark`. Return the deaths.

    The count starts again at 1 if `mark` counted the deaths of another record before.
    """
    mark.deaths = mark.deaths + 1 if mark.deadly_offset == record.offset else 1
    mark.deadly_offset = record.offset
    mark.save(update_fields=["deadly_offset", "deaths"])
    return mark.deaths


def run_in_child(work: Callable[[], int]) -> int:
    """Close this thread's database connections, run `work` in a forked child, and return its result (0 to 255).

    If `work` raises an exception, return 1. If a signal ends the child, return minus the number of the signal. A child
    that is not done after `CONSUMER_TRIAL_TIMEOUT` seconds is killed.
    """
    connections.close_all()  # Parent and child must not share a connection.
    parent_lives, held_by_parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held_by_parent)
        _become_worker(work, parent_lives)
    os.close(parent_lives)
    try:
        return _wait_for(child)
    finally:
        os.close(held_by_parent)


def _wait_for(child: int) -> int:
    deadline = time.monotonic() + settings.CONSUMER_TRIAL_TIMEOUT
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(CHILD_POLL_S)


def _become_worker(work: Callable[[], int], parent_lives: int) -> None:
    result = 1  # The exit code after an exception.
    try:
        threading.Thread(target=_end_with_parent, args=(parent_lives,), daemon=True).start()
        # A signal to the process group also reaches the parent, which handles it. The child shares the parent's wakeup
        # pipe, and must not write the signal to it a second time.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        result = work()
    finally:
        # `_exit` runs no exit handlers: they belong to the parent's clients and threads.
        os._exit(result)


def _end_with_parent(parent_lives: int) -> None:
    os.read(parent_lives, 1)  # The parent writes nothing, so this returns when the parent's end is closed.
    os._exit(1)
