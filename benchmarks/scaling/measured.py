"""Read the measured constants from docs/performance.md and docs/history.md, which say how they were measured."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured rates and CPU times, from which the tables of docs/scaling.md are computed.

    Each rate except `orders_per_s` is the rate of one process, which shares two cores with PostgreSQL. A CPU time is
    that of one event if its name begins with `notification_`, otherwise that of one order.
    """

    orders_per_s: float
    """Number of orders per second that one machine of two cores takes.

    Web server, PostgreSQL, Kafka and the clients run on this machine.
    """
    web_cpu_ms: float
    postgres_cpu_ms: float
    kafka_cpu_ms: float
    notifications_per_s: float
    notification_cpu_us: float
    notification_postgres_cpu_us: float
    notifications_with_emails_per_s: float
    sales_per_s: float
    relay_per_s: float
    work_per_s: float
    three_consumers: float
    """Rate of three consumers on two cores, divided by the rate of one consumer."""
    pruned_per_s: float
    """Number of outbox rows per second that `prune_events` moves to the history, in the last run in docs/history.md."""


def measured() -> Measured:
    """Read the constants from the pages in `docs`. Raises LookupError if a page does not have one of them."""
    performance = (DOCS / "performance.md").read_text()
    history = (DOCS / "history.md").read_text()
    together = row(performance, "orders-cpu")[0]
    web, postgres, sum_of_both = numbers(find(r"^\| the endpoint \|(.*)\|$", performance))
    python_us, postgres_us = numbers(find(r"^\| the consumer \|(.*)\|$", performance))
    pruned, pruning_s = numbers(find(r"`prune_events`, the other (\S+ rows moved \| the outbox \| \S+) s", history))
    return Measured(
        orders_per_s=row(performance, "orders-vs-no-events")[0],
        web_cpu_ms=together * web / sum_of_both,
        postgres_cpu_ms=together * postgres / sum_of_both,
        kafka_cpu_ms=numbers(find(r"order costs it \S+ ms of CPU instead of (\d+\.\d+)", performance))[0],
        notifications_per_s=row(performance, "consumer-vs-bare-loop")[0],
        notification_cpu_us=python_us,
        notification_postgres_cpu_us=postgres_us,
        notifications_with_emails_per_s=row(performance, "consumer-with-emails")[0],
        sales_per_s=row(performance, "sales")[0],
        relay_per_s=row(performance, "relay-vs-bare-sends")[0],
        work_per_s=row(performance, "work-vs-bare-sql")[0],
        three_consumers=row(performance, "consumers-3")[2],
        pruned_per_s=pruned / pruning_s,
    )


def row(page: str, name: str) -> list[float]:
    """Return the numbers of the benchmark table's row `name` in the Markdown text `page`: product, peer and ratio."""
    return numbers(find(rf"^\| `{re.escape(name)}`[^|]*\|[^|]*\|([^|]*\|[^|]*\|[^|]*)\|", page))


def find(pattern: str, page: str) -> str:
    found = re.search(pattern, page, re.MULTILINE)
    if found is None:
        raise LookupError(f"The page has no {pattern!r}: correct the pattern in benchmarks/scaling/measured.py")
    return found.group(1)


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]
