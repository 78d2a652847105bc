"""The memory, threads and open files of a consumer do not grow with the number of events that it has read."""

from typing import NamedTuple

import psutil

from testkit.database import value
from testkit.foreign_events import foreign_events, send
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, OwnTopic, Start

MANY_EVENTS, FEW_EVENTS = 30_000, 10_000
MAX_GROWTH_BYTES = 10 * 1024 * 1024


class Size(NamedTuple):
    memory: int
    threads: int
    descriptors: int


def size(process: psutil.Process) -> Size:
    return Size(process.memory_info().rss, process.num_threads(), process.num_fds())


def notifications() -> int:
    return int(value("SELECT count(*) FROM notifications_notification"))


def test_a_consumer_does_not_grow_with_the_events_it_reads(own_topic: OwnTopic, start: Start) -> None:
    """Memory stays bounded; the numbers of threads and descriptors stay the same."""
    before = notifications()
    consumer = start(*CONSUME, "--group", own_topic.name, **own_topic.env)

    def read(count: int, *, until: int) -> Size:
        for partition in range(3):
            send(foreign_events(count // 3 + 1), topic=own_topic.name, partition=partition)
        wait_until(lambda: notifications() - before >= until)
        return size(consumer.family()[0])

    after_few = read(FEW_EVENTS, until=FEW_EVENTS)
    after_many = read(MANY_EVENTS - FEW_EVENTS, until=MANY_EVENTS)
    print(f"after {FEW_EVENTS}: {after_few}, after {MANY_EVENTS}: {after_many}")
    assert after_many.memory - after_few.memory < MAX_GROWTH_BYTES
    assert (after_many.threads, after_many.descriptors) == (after_few.threads, after_few.descriptors)
    assert consumer.stop() == 0, consumer.log.read_text()
