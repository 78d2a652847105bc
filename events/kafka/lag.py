"""How far a consumer group is behind a topic."""

import time
from typing import NamedTuple

from events.kafka import KafkaUnreachable
from events.kafka.cluster import Viewer

READ_TIMEOUT = 3.0
"""Seconds for reading the first unread record of every partition."""


class PartitionLag(NamedTuple):
    """One partition's lag. What depends on a committed offset is None before the group's first commit."""

    topic: str
    partition: int
    current_offset: int | None
    end_offset: int
    lag: int | None
    seconds_behind: float | None
    """Age of the first unread record; 0 where there is none."""


def group_lag(*, topic: str, group: str) -> list[PartitionLag]:
    """The group's lag on every partition of `topic`. Raises KafkaUnreachable."""
    viewer = Viewer(group=group)
    try:
        offsets = viewer.offsets(topic)
        unread = {
            partition: max(known.committed, known.beginning)
            for partition, known in offsets.items()
            if known.committed is not None and known.committed < known.end
        }
        timestamps = viewer.timestamps(topic, unread, timeout=READ_TIMEOUT) if unread else {}
    finally:
        viewer.close()
    return [
        PartitionLag(
            topic=topic,
            partition=partition,
            current_offset=known.committed,
            end_offset=known.end,
            # What Kafka deleted before the group read it cannot be read any more.
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
    """Whether a group has worked off what stood on the topic when this was first asked."""

    def __init__(self, *, topic: str, group: str) -> None:
        """Raises KafkaUnreachable."""
        self._topic = topic
        self._viewer = Viewer(group=group)
        self._goal: dict[int, int] | None = None
        self._next_look = 0.0

    def __call__(self) -> bool:
        """Looks at the committed offsets, but not more often than twice a second; False where Kafka does not answer."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + 0.5
        try:
            offsets = self._viewer.offsets(self._topic)
        except KafkaUnreachable:
            return False
        if self._goal is None:
            self._goal = {partition: known.end for partition, known in offsets.items() if known.end > known.beginning}
        return all((offsets[partition].committed or 0) >= end for partition, end in self._goal.items())

    def close(self) -> None:
        self._viewer.close()
