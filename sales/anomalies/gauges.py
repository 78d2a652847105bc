"""Metrics of the anomalies, read from their table at a scrape.

A counter in the watcher's memory would lose an anomaly whose watcher dies between its commit and the next scrape.
"""

from collections.abc import Iterator
from typing import NamedTuple

from django.db.models import Count
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from events.database_clock import database_now
from events.observing.readings import Reading
from sales.anomalies.models import AnomalyWatch, SalesAnomaly
from sales.events import ANOMALY_RULES


class Watched(NamedTuple):
    """The number of all recorded anomalies by rule, and the age of the time up to which the sales were judged."""

    anomalies: dict[str, int]
    """Number of anomalies by rule; 0 for a rule that has found none."""
    judged_age_s: float | None
    """Seconds since the time up to which the sales were judged; None before the first turn of a watcher."""


def read_watched() -> Watched:
    counted = SalesAnomaly.objects.order_by().values_list("rule").annotate(Count("pk"))
    judged_until = AnomalyWatch.objects.values_list("judged_until", flat=True).first()
    return Watched(
        dict.fromkeys(map(str, ANOMALY_RULES), 0) | dict(counted),
        max(0.0, (database_now() - judged_until).total_seconds()) if judged_until else None,
    )


class AnomalyCollector(Collector):
    """Collects the number of anomalies by rule, and the seconds since the end of the last judged interval.

    A scrape gets neither of them if the database cannot be read.
    """

    def __init__(self) -> None:
        self._watched = Reading("the anomalies of sales", read_watched)

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that registering the collector does not read the gauges."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        if watched := self._watched.latest():
            yield from gauges(watched)


def gauges(watched: Watched) -> Iterator[Metric]:
    anomalies = CounterMetricFamily("sales_anomalies", "Anomalies of sales that were found.", labels=["rule"])
    for rule, count in watched.anomalies.items():
        anomalies.add_metric([rule], count)
    yield anomalies
    if watched.judged_age_s is not None:
        yield GaugeMetricFamily(
            "sales_judged_age_seconds", "Time since the end of the last interval that was judged.", watched.judged_age_s
        )
