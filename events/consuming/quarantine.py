"""The quarantine: finds the message that kills the process that handles it.

Such a message would kill every process after it, too. So a consumer commits a mark before it handles the first batch of
each partition since its start, and lifts the mark behind that batch. A consumer that starts and finds a mark handles
the marked messages one by one, each in a child process. A child that dies was killed by its message; a person who kills
the consumer itself leaves nothing but the mark. A healthy consumer pays for one mark a partition and start.
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
from events.correlation import about
from events.kafka import Record
from events.models import DeathMark
from events.troubles import Outage, Poison, Suspect

logger = logging.getLogger(__name__)

CHILD_POLL_S = 0.005
"""Between two looks at a child."""


class Trial(IntEnum):
    """How a child that tried one message ended. Any other exit code is a death."""

    DONE = 0
    OUTAGE = 64
    SUSPECT = 65
    AT_LIMIT = 66


class Quarantine:
    """Keeps the marks of one consumer, and tries marked messages alone."""

    def __init__(self, processor: Processor[Any], *, group: str) -> None:
        self._processor = processor
        self._group = group
        self._proven: set[int] = set()
        """Partitions of which this process has survived a batch."""
        self._marked: set[int] = set()
        """Partitions whose mark is this process's own."""

    def marks_on(self, records: Sequence[Record]) -> dict[int, DeathMark]:
        """Return, by partition, the marks that an earlier consumer left on partitions of `records`."""
        unknown = {record.partition for record in records} - self._proven - self._marked
        return left_behind(group=self._group, topic=records[0].topic, partitions=unknown) if unknown else {}

    @contextmanager
    def marking(self, records: Sequence[Record]) -> Iterator[None]:
        """Mark the partitions of `records` that are not proven, and lift the marks when the block has succeeded."""
        topic = records[0].topic
        unproven = {record.partition for record in records} - self._proven
        if unproven:
            self._marked |= unproven
            first = [record for record in records if record.partition in unproven]
            place(group=self._group, topic=topic, records=first)
        yield
        if unproven:
            self._lift(topic, unproven)

    def one_by_one(self, records: Sequence[Record], mark: DeathMark) -> Iterator[Record]:
        """Yield each of `records`, which have the mark's partition, and lift the mark behind the last marked one."""
        logger.warning("A consumer ended with %s in hand: its messages are tried one by one", mark)
        yield from records
        if records[-1].offset >= mark.last_offset:
            self._lift(mark.topic, {mark.partition})

    def _lift(self, topic: str, partitions: set[int]) -> None:
        lift(group=self._group, topic=topic, partitions=partitions)
        self._proven |= partitions
        self._marked -= partitions

    def try_alone(self, record: Record, mark: DeathMark) -> bool:
        """Process `record` in a child process, until it is done or has killed `CONSUMER_DEATHS` children.

        Return whether the group is at its limit of dead letters in a row. Raises Outage, Suspect.
        """
        while True:
            ended = run_in_child(lambda: self._trial(record))
            if ended in (Trial.DONE, Trial.AT_LIMIT):
                return ended == Trial.AT_LIMIT
            if ended == Trial.OUTAGE:
                raise Outage("tried in a child process, see above")
            if ended == Trial.SUSPECT:
                self._processor.count_failed_attempt(record)
                raise Suspect("tried in a child process, see above")
            deaths = count_death(mark, record)
            how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
            with about(record.headers):
                so_far = f"{deaths} time{pluralize(deaths)} so far"
                logger.error("Handling %s ended its process with %s, %s", position(record), how, so_far)
            if deaths >= settings.CONSUMER_DEATHS:
                processes = f"{deaths} process{pluralize(deaths, 'es')}"
                poison = Poison(f"Handling it ended {processes}, with {how}")
                return self._processor.set_aside(record, poison).at_limit

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
            return Trial.AT_LIMIT


def left_behind(*, group: str, topic: str, partitions: Iterable[int]) -> dict[int, DeathMark]:
    """Return, by partition, the marks of consumers that never came to lift them."""
    marks = DeathMark.objects.filter(group=group, topic=topic, partition__in=list(partitions))
    return {mark.partition: mark for mark in marks}


def place(*, group: str, topic: str, records: Sequence[Record]) -> None:
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


def lift(*, group: str, topic: str, partitions: Iterable[int]) -> None:
    DeathMark.objects.filter(group=group, topic=topic, partition__in=list(partitions)).delete()


def forget() -> None:
    """Drop all marks, because their broker is gone. A new broker has other messages at these offsets."""
    DeathMark.objects.all().delete()


def count_death(mark: DeathMark, record: Record) -> int:
    """Count one more process that `record` killed, and return how many there were."""
    mark.deaths = mark.deaths + 1 if mark.deadly_offset == record.offset else 1
    mark.deadly_offset = record.offset
    mark.save(update_fields=["deadly_offset", "deaths"])
    return mark.deaths


def run_in_child(work: Callable[[], int]) -> int:
    """Fork, do `work` in the child, and return its result (0 to 255), or minus the signal that ended the child.

    A child that is not done after `CONSUMER_TRIAL_TIMEOUT` is killed.
    """
    connections.close_all()  # Parent and child would speak over one and the same.
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
    result = 1  # What an exception leaves behind.
    try:
        threading.Thread(target=_end_with_parent, args=(parent_lives,), daemon=True).start()
        # Signals to the whole process group are the parent's business, and must not reach it twice.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        result = work()
    finally:
        # None of the parent's threads, clients and exit handlers came along.
        os._exit(result)


def _end_with_parent(parent_lives: int) -> None:
    os.read(parent_lives, 1)  # Nothing is ever written: it returns when the parent's end is closed.
    os._exit(1)
