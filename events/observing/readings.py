"""Gauges that are read at a scrape: the lag of the groups, and the outbox.

A thread reads them, so that a scrape gets an answer in time even if Kafka or the database does not answer.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import connection
from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from events.kafka.lag import PartitionLag, group_lag
from events.models import AGE_OF_OLDEST, OutboxEvent
from events.subscriptions import Subscription

logger = logging.getLogger(__name__)

FRESH_FOR_S = 2.0
"""Default for the largest age, in seconds, at which a value is returned without a new attempt to read it."""
STALE_AFTER_S = 10.0
"""Largest age, in seconds, of a value that `Reading.latest` returns. Instead of an older value, it returns None."""
DEFAULT_WAIT_S = 2.0
"""Default for the longest wait for a new value, in seconds. Prometheus gives up after ten seconds."""

Value = TypeVar("Value")


class Reading(Generic[Value]):
    """Reads a value in a background thread. While an attempt hangs, no second one starts."""

    def __init__(self, name: str, read: Callable[[], Value]) -> None:
        """Create a reading. `name` is its name in log lines."""
        self._name = name
        self._read = read
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._latest: tuple[float, Value] | None = None
        """The time at which the last finished attempt to read began, by the monotonic clock, and the value read.

        None if this attempt failed, or if no attempt has finished.
        """

    def latest(self, *, fresh_s: float = FRESH_FOR_S, max_wait_s: float | None = None) -> Value | None:
        """Return the last value if it is at most `fresh_s` seconds old.

        Otherwise wait up to `max_wait_s` seconds (by default `DEFAULT_WAIT_S`) for a new value, and then return the
        latest value. Return None if this value is older than `STALE_AFTER_S`, or if the last finished attempt failed.
        """
        if self._newer_than(fresh_s) is None:
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._attempt, name=f"reading {self._name}", daemon=True)
                    self._thread.start()
                attempt = self._thread
            attempt.join(DEFAULT_WAIT_S if max_wait_s is None else max_wait_s)
        newest = self._newer_than(STALE_AFTER_S)
        return newest[1] if newest else None

    def _newer_than(self, seconds: float) -> tuple[float, Value] | None:
        """Return the latest value with its time, if it is at most `seconds` old."""
        latest = self._latest  # The thread may replace it at any moment.
        return latest if latest and time.monotonic() - latest[0] <= seconds else None

    def _attempt(self) -> None:
        try:
            self._latest = (time.monotonic(), self._read())
        except Exception as error:  # noqa: BLE001 - a failed reading must not fail the scrape
            self._latest = None
            logger.warning("Reading %s failed: %s", self._name, str(error).strip())
        finally:
            connection.close()


class Outbox(NamedTuple):
    """The number of the outbox's pending rows, and the age of the oldest one."""

    pending: int
    """Number of the outbox's pending rows."""
    oldest_pending_seconds: float
    """Age of the oldest pending row; 0 if no row is pending."""


def read_outbox(*, count_up_to: int | None = None) -> Outbox:
    """Read the number of pending rows and the age of the oldest one.

    With `count_up_to`, read at most that many rows, ordered by topic and id. An older row may remain unread.
    """
    rows = OutboxEvent.objects.pending().order_by("topic", "pk")[:count_up_to]
    found = rows.aggregate(pending=Count("pk"), age=AGE_OF_OLDEST)
    return Outbox(found["pending"], max(0.0, found["age"].total_seconds()) if found["age"] else 0.0)


def lag_by_group(subscriptions: Sequence[Subscription[Any]]) -> dict[str, list[PartitionLag]]:
    """Read the lag of each group on each partition. Raises KafkaUnreachable."""
    return {one.group: group_lag(topic=one.topic.name, group=one.group) for one in subscriptions}


class PipelineCollector(Collector):
    """Gauges of the outbox and of the groups' lag. Those of the lag have names in the style of kafka_exporter.

    A value is left out if the last finished attempt to read it failed, or if the latest value is older than
    `STALE_AFTER_S`. An old number would hide the failure.
    """

    def __init__(self, subscriptions: Callable[[], Sequence[Subscription[Any]]]) -> None:
        """Create a collector for the groups of the subscriptions that `subscriptions` returns."""
        self._lag = Reading("the lag", lambda: lag_by_group(subscriptions()))
        self._outbox = Reading("the outbox", read_outbox)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that registering the collector does not read the gauges."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _outbox_gauges(self._outbox.latest())
        yield from _lag_gauges(self._lag.latest() or {})


def _outbox_gauges(outbox: Outbox | None) -> Iterator[GaugeMetricFamily]:
    if outbox is not None:
        yield GaugeMetricFamily("outbox_pending", "Messages that still have to reach Kafka.", outbox.pending)
        yield GaugeMetricFamily(
            "outbox_oldest_pending_seconds", "Age of the oldest of them; 0 for none.", outbox.oldest_pending_seconds
        )


def _lag_gauges(groups: dict[str, list[PartitionLag]]) -> Iterator[GaugeMetricFamily]:
    end = GaugeMetricFamily(
        "kafka_topic_partition_current_offset", "The partition's next offset.", labels=["topic", "partition"]
    )
    of_group = ["consumergroup", "topic", "partition"]
    current = GaugeMetricFamily("kafka_consumergroup_current_offset", "The group's next offset.", labels=of_group)
    lag = GaugeMetricFamily("kafka_consumergroup_lag", "Records the group has not committed.", labels=of_group)
    seconds = GaugeMetricFamily(
        "kafka_consumergroup_lag_seconds", "Age of the group's first unread record; 0 for none.", labels=of_group
    )
    ends: dict[tuple[str, str], int] = {}
    for group, partitions in groups.items():
        for one in partitions:
            partition = (one.topic, str(one.partition))
            ends[partition] = one.end_offset
            for gauge, value in ((current, one.current_offset), (lag, one.lag), (seconds, one.seconds_behind)):
                if value is not None:
                    gauge.add_metric([group, *partition], value)
    for partition, offset in ends.items():
        end.add_metric(partition, offset)
    yield from (current, lag, seconds, end)
