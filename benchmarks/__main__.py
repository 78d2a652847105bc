"""`make bench` compares the product with its peers, in turns, on one machine. See docs/performance.md."""

import argparse
import json
import logging
import os
import platform
import shlex
import sys
import sysconfig
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.comparison import Pair, Row, table
from benchmarks.earlier import EARLIER
from benchmarks.servers import Servers, servers
from commerce.devserver import lifeline

STARTED_AT = time.perf_counter()
RESULTS = Path(__file__).parent.parent / "var" / "bench.json"


def all_rows() -> list[Row]:
    post = "POST /api/orders"
    return [
        Row(
            name="orders-vs-no-events",
            what=f"{post} beside the same endpoint without any event machinery",
            unit="requests/s",
            target=0.85,
        ),
        Row(
            name="orders-vs-bare-sql",
            what=f"{post} beside one handwritten statement, no DRF, no JWT",
            unit="requests/s",
            target=0.72,
        ),
        Row(
            name="orders-vs-gunicorn",
            what=f"{post} beside itself on gunicorn with as many workers and threads",
            unit="requests/s",
            target=1.05,
        ),
        Row(
            name="orders-cpu",
            what=f"{post}: CPU of web server and PostgreSQL beside commit {EARLIER} on gunicorn",
            unit="CPU ms",
            target=0.75,
            better="lower",
        ),
        Row(
            name="orders-p99-vs-synchronous-kafka",
            what=f"{post} beside a usual view that waits for Kafka",
            unit="p99 ms",
            target=0.5,
            better="lower",
        ),
        Row(
            name="orders-p99-vs-waiting-endpoint",
            what=f"{post} beside its own endpoint, waiting for Kafka in place of its event machinery",
            unit="p99 ms",
            target=None,
            better="lower",
        ),
        Row(
            name="orders-p99-without-kafka",
            what=f"{post} with Kafka gone beside itself with Kafka",
            unit="p99 ms",
            target=1.5,
            better="lower",
        ),
        Row(
            name="consumer-vs-usual",
            what="consumer beside one event, one transaction, one commit",
            unit="events/s",
            target=25,
        ),
        Row(name="consumer-vs-bare-loop", what="consumer beside the bare loop", unit="events/s", target=2.2),
        Row(
            name="consumer-vs-limit",
            what="consumer beside a bare loop of its own means",
            unit="events/s",
            target=0.8,
        ),
        Row(
            name="consumer-with-inbox",
            what="consumer that claims each event in the inbox beside the one of notifications",
            unit="events/s",
            target=0.5,
        ),
        Row(
            name="consumer-with-emails",
            what="consumer that records an e-mail for each notification beside one that records none",
            unit="events/s",
            target=0.9,
        ),
        Row(
            name="consumer-growth",
            what="consumer with a backlog of 300,000 beside 10,000",
            unit="events/s",
            target=0.9,
        ),
        Row(
            name="consumer-memory",
            what="consumer behind a backlog of 300,000 beside 10,000",
            unit="MiB",
            target=1.15,
            better="lower",
        ),
        Row(
            name="sales",
            what="consumer of both read models of sales beside the bare loop with the same SQL",
            unit="events/s",
            target=0.6,
        ),
        Row(name="sales-consumers-2", what="two consumers of sales beside one", unit="events/s", target=1.0),
        Row(name="sales-consumers-3", what="three consumers of sales beside one", unit="events/s", target=1.0),
        Row(
            name="sales-api-growth",
            what="GET /api/sales for a day of minutes with ten years of minutes in the table beside that day alone",
            unit="p50 ms",
            target=1.3,
            better="lower",
        ),
        Row(name="consumers-2", what="two consumers beside one", unit="events/s", target=1.0),
        Row(name="consumers-3", what="three consumers beside one", unit="events/s", target=1.0),
        Row(
            name="relay-vs-bare-sends",
            what="relay with 100,000 pending rows beside bare sends of the same bytes",
            unit="events/s",
            target=0.5,
        ),
        Row(
            name="work-vs-bare-sql",
            what="worker of leased work whose action costs nothing beside bare claims and results",
            unit="pieces/s",
            target=0.5,
        ),
        Row(
            name="work-growth",
            what="claim with 1,000,000 pending pieces of work beside 1,000",
            unit="ms",
            target=1.3,
            better="lower",
        ),
        Row(
            name="end-to-end-p50",
            what="POST answered until the notification is visible, 50 orders/s, median",
            unit="ms",
            target=20,
            better="lower",
        ),
        Row(
            name="end-to-end-p99",
            what="POST answered until the notification is visible, 50 orders/s, p99",
            unit="ms",
            target=100,
            better="lower",
        ),
        Row(
            name="checkouts-p99",
            what="checkout until the order is paid and shipped, 100 checkouts/s for 30 s, provider of 50 ms, p99",
            unit="s",
            target=3,
            better="lower",
        ),
        Row(
            name="orders-list",
            what="GET /api/orders with 1,000,000 rows beside 1,000",
            unit="p50 ms",
            target=1.3,
            better="lower",
        ),
        Row(
            name="notifications-list",
            what="GET /api/notifications with 1,000,000 rows beside 1,000",
            unit="p50 ms",
            target=1.3,
            better="lower",
        ),
    ]


NEEDS_APACHE = {"consumer-growth", "consumer-memory"}
"""Names of the benchmarks whose backlog of events is too large for the embedded broker."""


def measure(running: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    # Django reads the environment once, so import it after the servers have set it.
    import django

    django.setup()
    # httpx would log every request of every customer.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from benchmarks import checking_out, consuming, end_to_end, listing, placing_orders, relaying, selling, working

    for measuring, names in (
        (placing_orders.measure, set(placing_orders.PEERS)),
        (placing_orders.measure_gunicorn, {"orders-vs-gunicorn"}),
        (placing_orders.measure_cpu, {"orders-cpu"}),
        (placing_orders.measure_outage, {"orders-p99-without-kafka"}),
        (consuming.measure, set(consuming.ROWS)),
        (consuming.measure_growth, {"consumer-growth", "consumer-memory"}),
        (consuming.measure_several, {"consumers-2", "consumers-3"}),
        (selling.measure, {"sales", *selling.CONSUMERS}),
        (selling.measure_reading, {"sales-api-growth"}),
        (relaying.measure, {"relay-vs-bare-sends"}),
        (working.measure, {"work-vs-bare-sql"}),
        (working.measure_growth, {"work-growth"}),
        (end_to_end.measure, {"end-to-end-p50", "end-to-end-p99"}),
        (checking_out.measure, {"checkouts-p99"}),
        (listing.measure, set(listing.LISTS)),
    ):
        if names & wanted:
            yield from measuring(running, wanted)


def main() -> int:
    rows = {row.name: row for row in all_rows()}
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME", help=f"one row of {', '.join(rows)}")
    only = parser.parse_args().only
    if only and only not in rows:
        parser.error(f"there is no row {only}; the rows are {', '.join(rows)}")
    wanted = {only} if only else set(rows)
    lifeline.interrupt_on_signals()
    lifeline.follow_make()
    with servers() as running:
        header = _header(running)
        print("\n".join(f"{name}: {fact}" for name, fact in header.items()))
        print("A full run takes 30 to 40 minutes; the first figures come after a minute or two.", flush=True)
        for name, pair in measure(running, wanted if running.is_apache else wanted - NEEDS_APACHE):
            if name in wanted:
                rows[name].rounds.append(pair)
                _show_progress(rows[name])
    if unmeasured := [name for name in rows if name in wanted and not rows[name].rounds]:
        print(f"\nNot measured, because a peer or Apache Kafka is missing: {', '.join(unmeasured)}")
    measured = [row for row in rows.values() if row.rounds]
    if not measured:
        return 1
    print(f"\n{table(measured)}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"header": header, "rows": [row.as_json() for row in measured]}, indent=2) + "\n")
    missed = [row.name for row in measured if not row.met]
    if missed:
        print(f"\nMissed: {', '.join(missed)}")
    return 1 if missed else 0


def _header(running: Servers) -> dict[str, str]:
    return {
        "broker": str(running.broker),
        "database": running.postgres_version,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "interpreter": _interpreter_build(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def _interpreter_build() -> str:
    """Return the path of this Python and its build's optimisations. Without them, Python is up to 1.8 times slower."""
    arguments = shlex.split(sysconfig.get_config_var("CONFIG_ARGS") or "")
    known = [one for one in arguments if one.startswith(("--enable-optimizations", "--with-lto"))]
    # Debian's build passes the flags of PGO and LTO to the compiler, and not to `configure`.
    unknown = "neither PGO nor LTO in CONFIG_ARGS, where Debian's own Python, which has both, does not name them"
    return f"{os.path.realpath(sys.executable)}, {', '.join(known) or unknown}"


def _show_progress(row: Row) -> None:
    """Print the last round in one line. On a terminal, the line replaces the previous one."""
    pair = row.rounds[-1]
    line = (
        f"{time.perf_counter() - STARTED_AT:5.0f} s  {row.name} round {len(row.rounds)}: "
        f"{pair.ours:,.1f} beside {pair.beside:,.1f} {row.unit}, ratio {pair.ratio:.2f}"
    )
    print(f"\r\033[K{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
