"""Formulas for the number of consumers, cores, machines and bytes that a load needs."""

import math
from dataclasses import dataclass

from benchmarks.scaling.measured import Measured
from benchmarks.scaling.sizes import Sizes

DAY_S = 86_400
EVENTS_PER_ORDER = 2
"""Number of events of an order, which is placed and paid."""
PEAK_TO_MEAN = 5
"""An assumption about a shop: its busiest minutes have five times the orders of an average minute."""
BUSY = 0.5
"""Share of a core or of a consumer's rate to plan for at the peak. The rest drains backlogs."""
OUTBOX_DAYS, KAFKA_DAYS, YEAR_DAYS = 30, 7, 365


@dataclass(frozen=True)
class Demand:
    """A load, given by the orders a second at its peak. The day's average is this rate divided by `PEAK_TO_MEAN`."""

    name: str
    peak_per_s: float

    @classmethod
    def of_day(cls, name: str, orders: float) -> "Demand":
        return cls(name, orders / DAY_S * PEAK_TO_MEAN)

    @property
    def orders_per_day(self) -> float:
        return self.peak_per_s / PEAK_TO_MEAN * DAY_S

    @property
    def events_per_s(self) -> float:
        return self.peak_per_s * EVENTS_PER_ORDER


MILLION_A_DAY = Demand.of_day("a million orders a day", 1_000_000)
THOUSAND_A_SECOND = Demand("a thousand orders a second", 1_000)
TEN_THOUSAND_A_SECOND = Demand("ten thousand orders a second", 10_000)
DEMANDS = (Demand.of_day("100,000 orders a day", 100_000), MILLION_A_DAY, THOUSAND_A_SECOND)


def cores(demand: Demand, known: Measured) -> dict[str, float]:
    """Return the busy cores of each part at the peak. Paying is counted at the cost of placing, an upper bound.

    For sales only the rate of one consumer is known. At this rate, one busy core each is counted for the consumer and
    for PostgreSQL.
    """
    changes = events = demand.events_per_s
    sales = events / known.sales_per_s
    return {
        "web": changes * known.web_cpu_ms / 1e3,
        "consumers and relay": events * known.notification_cpu_us / 1e6 + sales,
        "PostgreSQL": changes * known.postgres_cpu_ms / 1e3 + events * known.notification_postgres_cpu_us / 1e6 + sales,
        "Kafka": events * known.kafka_cpu_ms / 1e3,
    }


def group_rate(consumers: int, single_per_s: float, known: Measured) -> float:
    """Return the number of events a second that a group of `consumers` handles.

    `single_per_s` is the rate of one consumer alone. In a larger group, each consumer handles only a part of this rate.
    This part is assumed to be the one measured for three consumers on two cores (`known.three_consumers` / 3).
    """
    return single_per_s if consumers == 1 else single_per_s * consumers * known.three_consumers / 3


def consumers_needed(demand: Demand, single_per_s: float, known: Measured) -> int:
    """Return how many consumers a group needs to be at most half busy at the peak.

    `single_per_s` is the number of events a second that one consumer handles alone.
    """
    needed = demand.events_per_s / BUSY
    consumers = 1
    while group_rate(consumers, single_per_s, known) < needed:
        consumers += 1
    return consumers


def gigabytes_per_day(demand: Demand, sizes: Sizes) -> dict[str, float]:
    """Return how many gigabytes (10^9 bytes) a day each table, PostgreSQL's WAL and one copy of the topic grow by."""
    orders = demand.orders_per_day / 1e9
    events = orders * EVENTS_PER_ORDER
    wal = sizes.wal_of_placing_and_paying + sizes.wal_of_notifications + sizes.wal_of_sales + sizes.wal_of_pruning
    return {
        "orders with items": orders * (sizes.order + sizes.item),
        "outbox": events * sizes.outbox_event,
        "notifications": events * sizes.notification,
        "inbox": events * sizes.inbox_entry,
        "history": events * sizes.history_event,
        "WAL": orders * wal,
        "Kafka, one copy": events * sizes.kafka_record,
    }


def prune_hours(demand: Demand, known: Measured) -> float:
    """Return how long `prune_events` takes to move the events of one day, in hours."""
    return demand.orders_per_day * EVENTS_PER_ORDER / known.pruned_per_s / 3600


def machines(busy_cores: float, *, of_cores: int = 2) -> int:
    """Return how many machines with `of_cores` cores a part of the product needs, so that they are at most half busy.

    `busy_cores` is the number of cores that the part keeps busy.
    """
    return max(1, math.ceil(busy_cores / BUSY / of_cores))
