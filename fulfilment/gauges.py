"""Gauges of the fulfilments that have not ended, read at a scrape."""

from collections import Counter as Tally
from collections.abc import Iterator
from typing import NamedTuple

from django.db.models import Count, Min
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from events.database_clock import database_now
from events.observing.readings import Reading
from fulfilment.models import Fulfilment
from fulfilment.transitions import AT_REST, SHOWN, STUCK, UNDER_WAY, State


class Unfinished(NamedTuple):
    """The fulfilments that are neither completed nor cancelled."""

    by_state: dict[str, int]
    """Number of unfinished fulfilments by the state that the API shows."""
    oldest_under_way_seconds: float
    """Age in seconds of the oldest unfinished fulfilment that is not stuck; 0 if there is none."""


def read_unfinished() -> Unfinished:
    """Read the number of unfinished fulfilments by state, and the age of the oldest one that is not stuck."""
    by_state = Tally({SHOWN[state]: 0 for state in (*UNDER_WAY, *STUCK)})
    oldest = None
    rows = Fulfilment.objects.unfinished().order_by().values("state")
    for row in rows.annotate(count=Count("pk"), oldest=Min("created_at")):
        state = State(row["state"])
        by_state[SHOWN[state]] += row["count"]
        if state not in AT_REST:
            oldest = min(oldest or row["oldest"], row["oldest"])
    age_s = (database_now() - oldest).total_seconds() if oldest else 0.0
    return Unfinished(dict(by_state), max(0.0, age_s))


class FulfilmentCollector(Collector):
    """Gauges of the unfinished fulfilments. Values that cannot be read are left out."""

    def __init__(self) -> None:
        self._unfinished = Reading("the fulfilments", read_unfinished)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that registering the collector does not read the gauges."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        if unfinished := self._unfinished.latest():
            yield from gauges_of(unfinished)


def gauges_of(unfinished: Unfinished) -> Iterator[GaugeMetricFamily]:
    states = GaugeMetricFamily(
        "fulfilments_unfinished", "Fulfilments that are neither completed nor cancelled, by state.", labels=["state"]
    )
    for state, number in unfinished.by_state.items():
        states.add_metric([state], number)
    yield states
    yield GaugeMetricFamily(
        "fulfilments_oldest_under_way_seconds",
        "Time since the checkout of the oldest unfinished one that is not stuck; 0 for none.",
        unfinished.oldest_under_way_seconds,
    )
