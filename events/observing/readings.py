"""What is read when Prometheus asks: the group's lag and the outbox. Whoever is away, the answer comes in time."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from django.conf import settings
from django.db import connection
from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from events.kafka.lag import PartitionLag, group_lag
from events.models import AGE_OF_OLDEST, OutboxEvent

logger = logging.getLogger(__name__)

KEPT = 2.0
"""Seconds for which a reading is answered again."""
PATIENCE = 2.0
"""Seconds that a scrape waits for a reading; Prometheus itself gives up after ten."""

Reading = TypeVar("Reading")


class Attempt(Generic[Reading]):
    """One reading, made by a thread of its own."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self.begun = time.monotonic()
        self.result: Reading | None = None
        """None until it is there, and where it failed."""
        self._ended = threading.Event()
        threading.Thread(target=self._run, args=(read,), name="reading", daemon=True).start()

    def _run(self, read: Callable[[], Reading]) -> None:
        try:
            self.result = read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the scrape goes without
            logger.warning("Metrics go without a reading: %s", str(error).strip())
        finally:
            connection.close()
            self._ended.set()

    @property
    def is_over(self) -> bool:
        return self._ended.is_set() and time.monotonic() > self.begun + KEPT

    def wait(self) -> Reading | None:
        """None where it failed, or is not there `PATIENCE` seconds after it began."""
        self._ended.wait(max(0.0, self.begun + PATIENCE - time.monotonic()))
        return self.result


class Source(Generic[Reading]):
    """Readings that are made when they are asked for, one at a time: what hangs does not hang twice."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read
        self._latest: Attempt[Reading] | None = None
        self._lock = threading.Lock()

    def attempt(self) -> Attempt[Reading]:
        with self._lock:
            if self._latest is None or self._latest.is_over:
                self._latest = Attempt(self._read)
            return self._latest


class Outbox(NamedTuple):
    pending: int
    oldest_pending_seconds: float
    """0 where nothing is pending."""


def read_outbox() -> Outbox:
    rows = OutboxEvent.objects.pending().aggregate(pending=Count("*"), age=AGE_OF_OLDEST)
    return Outbox(rows["pending"], max(0.0, rows["age"].total_seconds()) if rows["age"] else 0.0)


class PipelineCollector(Collector):
    """Gauges of the group's lag, named as kafka_exporter names them, and of the outbox.

    What cannot be read is left out: a gap says that nobody knows, an old number would say that all is as it was.
    """

    def __init__(self, *, group: str) -> None:
        self._group = group
        self._lag = Source(lambda: group_lag(topic=settings.ORDER_EVENTS_TOPIC, group=group))
        self._outbox = Source(read_outbox)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is read when this is registered."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        lag, outbox = self._lag.attempt(), self._outbox.attempt()
        yield from _outbox_gauges(outbox.wait())
        yield from _lag_gauges(lag.wait() or [], self._group)


def _outbox_gauges(outbox: Outbox | None) -> Iterator[GaugeMetricFamily]:
    if outbox is not None:
        yield GaugeMetricFamily("outbox_pending", "Messages that still have to reach Kafka.", outbox.pending)
        yield GaugeMetricFamily(
            "outbox_oldest_pending_seconds", "Age of the oldest of them; 0 for none.", outbox.oldest_pending_seconds
        )


def _lag_gauges(lags: list[PartitionLag], group: str) -> Iterator[GaugeMetricFamily]:
    end = GaugeMetricFamily(
        "kafka_topic_partition_current_offset", "The partition's next offset.", labels=["topic", "partition"]
    )
    of_group = ["consumergroup", "topic", "partition"]
    current = GaugeMetricFamily("kafka_consumergroup_current_offset", "The group's next offset.", labels=of_group)
    lag = GaugeMetricFamily("kafka_consumergroup_lag", "Records the group has not committed.", labels=of_group)
    seconds = GaugeMetricFamily(
        "kafka_consumergroup_lag_seconds", "Age of the group's first unread record; 0 for none.", labels=of_group
    )
    for one in lags:
        partition = [one.topic, str(one.partition)]
        end.add_metric(partition, one.end_offset)
        for gauge, value in ((current, one.current_offset), (lag, one.lag), (seconds, one.seconds_behind)):
            if value is not None:
                gauge.add_metric([group, *partition], value)
    yield from (current, lag, seconds, end)
