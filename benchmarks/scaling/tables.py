"""Format the tables of docs/scaling.md as Markdown."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.scaling import plan, sizes
from benchmarks.scaling.measured import Measured, measured
from benchmarks.scaling.plan import (
    DEMANDS,
    EVENTS_PER_ORDER,
    MILLION_A_DAY,
    PEAK_TO_MEAN,
    TEN_THOUSAND_A_SECOND,
    THOUSAND_A_SECOND,
    Demand,
)
from benchmarks.scaling.queues import HOUR_S, Outcome, simulate
from benchmarks.scaling.sizes import Sizes

MINUTE_S = 60
TROUBLE = range(10 * MINUTE_S, 70 * MINUTE_S)
"""The seconds of the simulation in which Kafka or the group is away, or in which the flash sale happens.

They are an hour that begins ten minutes after the simulation's start.
"""
SIMULATED_S = 12 * HOUR_S
PARTITIONS_A_CONSUMER = 2
FLASH = 4
"""Factor by which a flash sale multiplies the peak."""


def tables() -> dict[str, str]:
    """Return the tables of docs/scaling.md by title, in the order of that page."""
    known, bytes_of = measured(), sizes.saved()
    return {
        "Rates": _rates(known),
        "Busy cores": _cores(known),
        "Limits": _limits(known),
        "Consumers and partitions": _consumers(known),
        "Bytes": _bytes(bytes_of),
        "Storage": _storage(bytes_of),
        "Outbox": _outbox(known, bytes_of),
        "Troubles": _troubles(known),
    }


def _rates(known: Measured) -> str:
    return _table(
        ("part", "unit", "measured"),
        [
            ("one machine with everything on it", "orders/s", f"{known.orders_per_s:,.0f}"),
            ("web, one core", "orders/s", f"{1e3 / known.web_cpu_ms:,.0f}"),
            ("PostgreSQL, one core", "orders/s", f"{1e3 / known.postgres_cpu_ms:,.0f}"),
            ("relay, one process", "events/s", f"{known.relay_per_s:,.0f}"),
            ("notifications, one consumer", "events/s", f"{known.notifications_per_s:,.0f}"),
            ("notifications with e-mails, one consumer", "events/s", f"{known.notifications_with_emails_per_s:,.0f}"),
            ("sales, one consumer", "events/s", f"{known.sales_per_s:,.0f}"),
            ("leased work, one worker, without the action itself", "pieces/s", f"{known.work_per_s:,.0f}"),
            ("pruning", "rows/s", f"{known.pruned_per_s:,.0f}"),
        ],
    )


def _cores(known: Measured) -> str:
    rows = []
    for demand in DEMANDS:
        busy = plan.cores(demand, known)
        most = max(busy, key=lambda part: busy[part])
        share = busy[most] / sum(busy.values())
        rows.append(
            (
                demand.name,
                f"{demand.peak_per_s:,.0f}",
                *(f"{value:.2f}" for value in busy.values()),
                f"{most} ({share:.0%})",
                f"{plan.machines(busy['web'])} + {plan.machines(busy['PostgreSQL'])}",
            )
        )
    parts = plan.cores(MILLION_A_DAY, known)
    return _table(
        ("load", "peak orders/s", *parts, "ends first", "machines of two cores, half busy: web + PostgreSQL"), rows
    )


def _consumers(known: Measured) -> str:
    groups = {
        "notifications": known.notifications_per_s,
        "notifications with e-mails": known.notifications_with_emails_per_s,
        "sales": known.sales_per_s,
    }
    rows = []
    for demand in (*DEMANDS, TEN_THOUSAND_A_SECOND):
        needed = [plan.consumers_needed(demand, rate, known) for rate in groups.values()]
        relay = f"{demand.events_per_s / known.relay_per_s:.0%}"
        rows.append(
            (
                demand.name,
                f"{demand.events_per_s:,.0f}",
                *map(str, needed),
                str(max(3, PARTITIONS_A_CONSUMER * max(needed))),
                relay,
            )
        )
    return _table(
        ("load", "peak events/s", *(f"consumers: {group}" for group in groups), "partitions", "a relay alone: busy"),
        rows,
    )


def _bytes(bytes_of: Sizes) -> str:
    return _table(
        ("what", f"bytes, with {bytes_of.orders:,} orders"),
        [
            ("order", f"{bytes_of.order:,.0f}"),
            ("item of an order", f"{bytes_of.item:,.0f}"),
            ("outbox, an event", f"{bytes_of.outbox_event:,.0f}"),
            ("history, an event", f"{bytes_of.history_event:,.0f}"),
            ("notification", f"{bytes_of.notification:,.0f}"),
            ("inbox, an event of one group", f"{bytes_of.inbox_entry:,.0f}"),
            ("Kafka, an event", f"{bytes_of.kafka_record:,.0f}"),
            ("WAL of placing and paying an order", f"{bytes_of.wal_of_placing_and_paying:,.0f}"),
            ("WAL of its notifications", f"{bytes_of.wal_of_notifications:,.0f}"),
            ("WAL of its sums of sales", f"{bytes_of.wal_of_sales:,.0f}"),
            ("WAL of moving its events to the history", f"{bytes_of.wal_of_pruning:,.0f}"),
        ],
    )


def _storage(bytes_of: Sizes) -> str:
    rows = []
    for demand in DEMANDS:
        daily = plan.gigabytes_per_day(demand, bytes_of)
        yearly = (
            sum(daily[part] for part in ("orders with items", "notifications", "inbox", "history")) * plan.YEAR_DAYS
        )
        peak_wal = daily["WAL"] * 1e3 / plan.DAY_S * PEAK_TO_MEAN
        rows.append(
            (
                demand.name,
                f"{demand.orders_per_day / 1e6:,.1f}",
                *(f"{value:,.2f}" for value in daily.values()),
                f"{peak_wal:,.2f}",
                f"{yearly:,.0f}",
            )
        )
    parts = plan.gigabytes_per_day(MILLION_A_DAY, bytes_of)
    return _table(
        (
            "load",
            "million orders/day",
            *(f"{part}, GB/day" for part in parts),
            "WAL at the peak, MB/s",
            "kept of a year, GB",
        ),
        rows,
    )


def _outbox(known: Measured, bytes_of: Sizes) -> str:
    rows = []
    for orders in (100_000, 1_000_000, 5_000_000, 20_000_000):
        demand = Demand.of_day(f"{orders:,}", orders)
        kept = plan.gigabytes_per_day(demand, bytes_of)["outbox"] * plan.OUTBOX_DAYS
        rows.append(
            (
                demand.name,
                f"{orders * EVENTS_PER_ORDER * plan.OUTBOX_DAYS / 1e6:,.0f}",
                f"{kept:,.0f}",
                f"{kept / plan.OUTBOX_DAYS:,.1f}",
                f"{plan.prune_hours(demand, known):.2f}",
            )
        )
    return _table(
        (
            "orders a day",
            f"million rows in {plan.OUTBOX_DAYS} days",
            f"GB in {plan.OUTBOX_DAYS} days",
            "GB in one day",
            "hours of pruning a day",
        ),
        rows,
    )


def _limits(known: Measured) -> str:
    one_order = plan.cores(Demand("", 1), known)
    rows = [
        (f"PostgreSQL with {count} cores, half busy", f"{count * plan.BUSY / one_order['PostgreSQL']:,.0f}")
        for count in (2, 8, 32, 64)
    ]
    relay = ("the relay, which one process at a time runs", f"{known.relay_per_s / EVENTS_PER_ORDER:,.0f}")
    return _table(("what cannot be had twice", "orders/s"), [*rows, relay])


def _troubles(known: Measured) -> str:
    rows = []
    for demand, consumers in ((MILLION_A_DAY, 1), (THOUSAND_A_SECOND, 1), (TEN_THOUSAND_A_SECOND, 3)):
        group = plan.group_rate(consumers, known.sales_per_s, known)
        for trouble, outcome in _outcomes(demand, known, group).items():
            rows.append(
                (
                    demand.name,
                    trouble,
                    str(consumers),
                    f"{outcome.outbox:,.0f}",
                    f"{outcome.lag:,.0f}",
                    _time(outcome.delay_s),
                    _time(outcome.drained_after_s),
                )
            )
    return _table(
        (
            "load, at its peak",
            "trouble",
            "consumers of sales",
            "most events pending",
            "largest lag",
            "longest delay",
            "drained after",
        ),
        rows,
    )


def _outcomes(demand: Demand, known: Measured, group_per_s: float) -> dict[str, Outcome]:
    def peak(_: int) -> float:
        return demand.events_per_s

    def flash(second: int) -> float:
        return demand.events_per_s * (FLASH if second in TROUBLE else 1)

    def run(arrivals: Callable[[int], float], **away: bool) -> Outcome:
        return simulate(
            arrivals=arrivals,
            seconds=SIMULATED_S,
            trouble=TROUBLE,
            relay_per_s=known.relay_per_s,
            group_per_s=group_per_s,
            **away,
        )

    return {
        "Kafka away for an hour": run(peak, kafka_away=True),
        "the group away for an hour": run(peak, group_away=True),
        f"a flash sale, {FLASH} times the peak, for an hour": run(flash),
    }


def _time(seconds: float) -> str:
    if seconds == float("inf"):
        return "never"
    return f"{seconds:,.0f} s" if seconds < 10 * MINUTE_S else f"{seconds / MINUTE_S:,.0f} min"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
