"""A simulation of the two queues of an event, outbox and topic, in steps of one second.

Rates alone do not tell how long a backlog lasts, because arrivals change while it drains.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

HOUR_S = 3600
HALF_AN_EVENT = 0.5
"""Tolerance when numbers of events are compared. The simulation adds up fractions of events, which is inexact."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    outbox: float
    """Largest number of events pending in the outbox."""
    lag: float
    """Largest number of events on the topic that the group has not handled."""
    delay_s: float
    """Longest time from an event's commit until the group has handled it, in seconds."""
    drained_after_s: float
    """Seconds from the end of `trouble` in `simulate` until no event waits; infinite if the simulation ends first."""


def simulate(
    *,
    arrivals: Callable[[int], float],
    seconds: int,
    trouble: range,
    relay_per_s: float,
    group_per_s: float,
    kafka_away: bool = False,
    group_away: bool = False,
) -> Outcome:
    """Simulate `seconds` seconds. In each of them, `arrivals(second)` events are committed to the outbox.

    During `trouble`, Kafka is away (`kafka_away`), the group is away (`group_away`), or `arrivals` exceeds the usual.
    Without a backlog, the fast path sends each event at once. The relay sends a backlog at the rate `relay_per_s`. The
    group handles at most `group_per_s` events per second.
    """
    away: Collection[int] = trouble
    outbox = lag = most_outbox = most_lag = longest = 0.0
    handled = 0.0
    oldest, until_oldest = 0, 0.0  # The second whose events the group handles next, and the number of events before it.
    drained_at: int | None = None
    committed: list[float] = []
    for second in range(seconds):
        new = arrivals(second)
        committed.append(new)
        sent = 0.0 if kafka_away and second in away else min(outbox + new, max(new, relay_per_s))
        outbox += new - sent
        done = 0.0 if group_away and second in away else min(lag + sent, group_per_s)
        lag += sent - done
        handled += done
        while oldest <= second and until_oldest + committed[oldest] <= handled + HALF_AN_EVENT:
            until_oldest += committed[oldest]
            oldest += 1
        longest = max(longest, second + 1 - oldest)
        most_outbox, most_lag = max(most_outbox, outbox), max(most_lag, lag)
        if second >= trouble.stop and drained_at is None and outbox + lag < HALF_AN_EVENT:
            drained_at = second
    drained = float("inf") if drained_at is None else drained_at - trouble.stop + 1
    return Outcome(outbox=most_outbox, lag=most_lag, delay_s=longest, drained_after_s=drained)
