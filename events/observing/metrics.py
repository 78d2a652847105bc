"""Counters and histograms of the event pipeline. The gauges, which are read at a scrape, are in `readings`.

The metrics of consumers have the label `group`, because each group handles the same events.
"""

from collections import Counter as Tally
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Protocol

from prometheus_client import Counter, Histogram

from events.observing.patches import BatchHistogram

OTHER = "OTHER"
"""Value of the label `event_type` for types that the topic does not declare. So producers cannot add time series."""
OUTCOMES = ("handled", "duplicate", "ignored", "dead")

published_total = Counter("events_published_total", "Messages recorded as published.", ["topic", "path"])
parked_total = Counter("events_parked_total", "Messages parked, because they can never be sent.", ["topic"])
consumed_total = Counter("events_consumed_total", "Events consumed.", ["group", "event_type", "outcome"])
dead_letters_total = Counter(
    "events_dead_letters_total", "Messages that became dead letters.", ["group", "topic", "reason"]
)
batch_seconds = Histogram(
    "consumer_batch_seconds",
    "From the beginning of a batch's handling until it is saved.",
    ["group"],
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
)
batch_size = Histogram(
    "consumer_batch_size", "Records in a batch.", ["group"], buckets=[1, 5, 10, 25, 50, 100, 250, 500, 1000]
)

end_to_end_seconds = BatchHistogram(
    "event_end_to_end_seconds",
    "From an event's timestamp to the commit of its handling.",
    ["group"],
    buckets=[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600],
)
end_to_end_unmeasured_total = Counter(
    "event_end_to_end_unmeasured_total",
    "Events that event_end_to_end_seconds leaves out: too old, or of the future.",
    ["group", "reason"],
)
MAX_LATENCY_S = 24 * 60 * 60.0
"""Longest latency that is measured, in seconds.

Older events are left out. They come from a backlog or a wrong clock, and would distort the sum.
"""
CLOCK_SKEW_S = 5.0
"""Accepted difference of two machines' clocks, in seconds. An event at most this far in the future has latency 0."""


class TimedEvent(Protocol):
    """The properties of an event that the metrics need."""

    @property
    def event_type(self) -> str: ...

    @property
    def timestamp(self) -> datetime: ...


def declare(event_types: Collection[str], *, group: str, measures_latency: bool) -> None:
    """Export the group's metrics, except `dead_letters_total`, as 0 before its first event.

    Otherwise Prometheus would miss the first increment, because it would first see the counter after this increment.
    `measures_latency` says whether the group's consumers observe `end_to_end_seconds`, which is exported only then.
    """
    for event_type in (*event_types, OTHER):
        for outcome in OUTCOMES:
            consumed_total.labels(group, event_type, outcome)
    for reason in ("old", "future"):
        end_to_end_unmeasured_total.labels(group, reason)
    for histogram in (batch_seconds, batch_size, *([end_to_end_seconds] if measures_latency else [])):
        histogram.labels(group)


def count_consumed(
    *, group: str, events: Collection[TimedEvent], wanted: Collection[TimedEvent], new: Collection[TimedEvent]
) -> None:
    """Count the events of a batch of `group` by type and by outcome: handled, duplicate or ignored.

    `wanted` are those of `events` whose type the group handles. `new` are those of `wanted` that it handled for the
    first time.
    """
    handled = _count_types(group, new, "handled", less=Tally())
    if len(new) < len(wanted):
        _count_types(group, wanted, "duplicate", less=handled)
    if len(wanted) < len(events):
        _count_types(group, events, "ignored", less=Tally(event.event_type for event in wanted))


def _count_types(group: str, events: Iterable[TimedEvent], outcome: str, *, less: Tally[str]) -> Tally[str]:
    counts = Tally(event.event_type for event in events) - less
    for event_type, count in counts.items():
        consumed_total.labels(group, event_type, outcome).inc(count)
    return counts


def observe_latencies(events: Collection[TimedEvent], *, group: str, saved_at: float) -> None:
    """Measure how long after their timestamps `group` saved `events`. `saved_at` is in seconds since 1970."""
    seconds = [saved_at - event.timestamp.timestamp() for event in events]
    measured = [max(0.0, one) for one in seconds if -CLOCK_SKEW_S <= one <= MAX_LATENCY_S]
    end_to_end_seconds.labels(group).observe_all(measured)
    if old := sum(one > MAX_LATENCY_S for one in seconds):
        end_to_end_unmeasured_total.labels(group, "old").inc(old)
    if future := sum(one < -CLOCK_SKEW_S for one in seconds):
        end_to_end_unmeasured_total.labels(group, "future").inc(future)
