"""The lag of a consumer group on a topic."""

import time
from collections.abc import Iterable
from typing import NamedTuple

from events.kafka import KafkaUnreachable
from events.kafka.cluster import Viewer

READ_TIMEOUT_S = 3.0
"""Longest time to read the first unread records of all partitions of a topic together, in seconds."""


class PartitionLag(NamedTuple):
    """The lag on one partition. Fields that need a committed offset are None before the group's first commit."""

    topic: str
    partition: int
    current_offset: int | None
    end_offset: int
    lag: int | None
    seconds_behind: float | None
    """Age of the first unread record, in seconds; 0 if there is none, None if it could not be read."""


def total_lag(partitions: Iterable[PartitionLag]) -> int:
    """Return the number of uncommitted records. Partitions without a committed offset do not count."""
    return sum(one.lag or 0 for one in partitions)


def is_never_read(*, current_offset: object, end_offset: object) -> bool:
    """Return whether the partition has had records, and the group has committed no offset of it."""
    return current_offset is None and bool(end_offset)


def group_lag(*, topic: str, group: str) -> list[PartitionLag]:
    """Return the group's lag on each partition of `topic`, sorted by partition number. Raises KafkaUnreachable."""
    viewer = Viewer(group=group)
    try:
        offsets = viewer.offsets(topic)
        unread = {
            partition: max(known.committed, known.beginning)
            for partition, known in offsets.items()
            if known.committed is not None and known.committed < known.end
        }
        timestamps = viewer.timestamps(topic, unread, timeout=READ_TIMEOUT_S) if unread else {}
    finally:
        viewer.close()
    return [
        PartitionLag(
            topic=topic,
            partition=partition,
            current_offset=known.committed,
            end_offset=known.end,
            # Records that Kafka deleted before the group read them do not count.
            lag=None if known.committed is None else max(0, known.end - max(known.committed, known.beginning)),
            seconds_behind=_seconds_behind(known.committed, timestamps.get(partition), is_behind=partition in unread),
        )
        for partition, known in sorted(offsets.items())
    ]


def _seconds_behind(committed: int | None, timestamp: int | None, *, is_behind: bool) -> float | None:
    if committed is None or (is_behind and timestamp is None):
        return None
    return max(0.0, round(time.time() - timestamp / 1000, 3)) if timestamp is not None else 0.0


class CaughtUp:
    """Tells whether a group has handled every record that was on the topic when Kafka first answered this object."""

    def __init__(self, *, topic: str, group: str) -> None:
        """Connect to Kafka. Raises KafkaUnreachable."""
        self._topic = topic
        self._viewer = Viewer(group=group)
        self._goal: dict[int, int] | None = None
        self._next_look = 0.0

    def __call__(self) -> bool:
        """Return whether the group has caught up; False if Kafka does not answer.

        The committed offsets are read at most twice a second. A call that comes too early to read them returns False.
        """
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + 0.5
        try:
            offsets = self._viewer.offsets(self._topic)
        except KafkaUnreachable:
            return False
        if self._goal is None:
            self._goal = {partition: known.end for partition, known in offsets.items() if known.end > known.beginning}
        if not offsets:
            return not self._goal
        # A topic that was deleted and made anew has fewer partitions, or ends earlier.
        return all(
            (known.committed or 0) >= min(end, known.end)
            for partition, end in self._goal.items()
            if (known := offsets.get(partition))
        )

    def close(self) -> None:
        self._viewer.close()
