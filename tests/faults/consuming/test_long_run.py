"""A consumer that has read much is no larger than one that has read little."""

from typing import NamedTuple

import psutil

from testkit.database import value
from testkit.foreign_events import foreign_events, send
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, OwnTopic, Start

MUCH, LITTLE = 30_000, 10_000
"""Events."""
MEMORY_GROWTH = 10 * 1024 * 1024
"""Bytes."""


class Size(NamedTuple):
    memory: int
    threads: int
    descriptors: int


def size(process: psutil.Process) -> Size:
    return Size(process.memory_info().rss, process.num_threads(), process.num_fds())


def notifications() -> int:
    return int(value("SELECT count(*) FROM notifications_notification"))


def test_memory_threads_and_descriptors_of_a_consumer_stay_however_much_it_reads(
    own_topic: OwnTopic, start: Start
) -> None:
    before = notifications()
    consumer = start(*CONSUME, "--group", own_topic.name, **own_topic.env)

    def read(count: int, *, until: int) -> Size:
        for partition in range(3):
            send(foreign_events(count // 3 + 1), topic=own_topic.name, partition=partition)
        wait_until(lambda: notifications() - before >= until)
        return size(consumer.family()[0])

    little = read(LITTLE, until=LITTLE)
    much = read(MUCH - LITTLE, until=MUCH)
    print(f"after {LITTLE}: {little}, after {MUCH}: {much}")
    assert much.memory - little.memory < MEMORY_GROWTH
    assert (much.threads, much.descriptors) == (little.threads, little.descriptors)
    assert consumer.stop() == 0, consumer.log.read_text()
