"""Who died of what: marks around a consumer's first batches, and children that try one message each.

A message that kills the process would kill every process after it, too. So a mark is committed before the first batch
of every partition since the start, and lifted behind it. A start that finds a mark handles the marked messages one by
one, each in a child process: a child that dies has been killed by its message, while whoever kills the consumer itself
leaves nothing but the mark. A healthy consumer pays for one mark a partition and start.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from django.conf import settings
from django.db import connections

from events.kafka import Record
from events.models import DeathMark

LOOK_EVERY = 0.005
"""Seconds between two looks at a child."""


def left_behind(*, group: str, topic: str, partitions: Iterable[int]) -> dict[int, DeathMark]:
    """By partition, the marks of consumers that never came to lift them."""
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
    """Drop all marks, because their broker is gone: a new one has other messages at these offsets."""
    DeathMark.objects.all().delete()


def count_death(mark: DeathMark, record: Record) -> int:
    """Note that `record` killed the process that handled it; how often it did so by now."""
    mark.deaths = mark.deaths + 1 if mark.deadly_offset == record.offset else 1
    mark.deadly_offset = record.offset
    mark.save(update_fields=["deadly_offset", "deaths"])
    return mark.deaths


def run_in_child(work: Callable[[], int]) -> int:
    """Fork, and do `work` there. Its result (0 to 255), or minus the signal that ended the child.

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
        time.sleep(LOOK_EVERY)


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
