"""Gauges of the pending work of each kind, read at a scrape."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from events.observing.readings import Reading
from events.work.kinds import Kind
from events.work.models import Backlog


class WorkCollector(Collector):
    """Gauges of the kinds of work that `kinds` returns. If those of one kind cannot be read, all are left out."""

    def __init__(self, kinds: Callable[[], Sequence[Kind[Any]]]) -> None:
        self._backlogs = Reading("the leased work", lambda: {one.name: one.model.objects.backlog() for one in kinds()})

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that registering the collector does not read the gauges."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, backlog in (self._backlogs.latest() or {}).items():
            yield from _gauges(name, backlog)


def _gauges(name: str, backlog: Backlog) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily(f"{name}_pending", "Pieces of work without a final state.", backlog.pending)
    yield GaugeMetricFamily(
        f"{name}_oldest_pending_seconds",
        "Time since the oldest of them was recorded; 0 for none.",
        backlog.oldest_pending_seconds,
    )
    yield GaugeMetricFamily(
        f"{name}_overdue_seconds",
        "Time for which one of them has been due without a worker that claimed it; 0 for none.",
        backlog.overdue_seconds,
    )
