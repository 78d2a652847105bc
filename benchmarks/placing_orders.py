"""`POST /api/orders` under load: 8 connections, orders of one item, with a token."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import psutil

from benchmarks import database
from benchmarks.comparison import Pair
from benchmarks.earlier import EARLIER
from benchmarks.load import ORDER, Connection, Load, closed_loop, request
from benchmarks.servers import Servers, running
from testkit.customer import Customer
from testkit.processes import WebServer
from testkit.releases.checkouts import NoSuchCommit, checked_out
from testkit.waiting import wait_until

CONNECTIONS = 8
ROUNDS = 7
LOAD_S = 4.0
"""Seconds of a period of load. In a round, the product and its peer have two periods each."""
WARM_UP_S, PEER_WARM_UP_S = 20.0, 2.0
"""Seconds of load before the first measurement, on the product's endpoint and on each peer.

Until Kafka's JVM has compiled its code, an order costs Kafka more CPU time, see docs/performance.md."""
OUTAGE_ROUNDS = 3
OUTAGE_LOAD_S = 10.0
"""Seconds of a period of load in `measure_outage`, with or without Kafka. One attempt to reach Kafka is shorter."""

PRODUCT_PATH = "/api/orders"
PEERS = {
    "orders-vs-no-events": "/peers/without-events",
    "orders-vs-bare-sql": "/peers/bare-sql",
    "orders-p99-vs-synchronous-kafka": "/peers/usual-orders",
    "orders-p99-vs-waiting-endpoint": "/peers/waiting-endpoint",
}

Subject: TypeAlias = "tuple[Site, str]"
"""What a period of load measures: a site, and the path to which the load sends its orders."""


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    """Compare the product's endpoint with the wanted endpoints of `PEERS`, on the same web server.

    Yield each round's figures with the name of the comparison. `wanted` has the names of the comparisons to measure.
    """
    peers = {name: path for name, path in PEERS.items() if name in wanted}
    with running(servers.web()) as web:
        site = Site(web)
        site.warm_up(peers.values())
        for number in range(ROUNDS):
            # Alternate the order, so that no peer always comes first or always follows the same other peer.
            for name, path in list(peers.items())[:: 1 if number % 2 else -1]:
                site.connect()
                first, second = (PRODUCT_PATH, path) if number % 2 else (path, PRODUCT_PATH)
                loads = _there_and_back((site, first), (site, second))
                ours, beside = loads[site, PRODUCT_PATH], loads[site, path]
                if "p99" in name:
                    yield name, Pair(ours.p99, beside.p99)
                else:
                    yield name, Pair(ours.per_second, beside.per_second)


def measure_gunicorn(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    """Compare the product's endpoint on granian and on gunicorn.

    Yield the name of the benchmark's row and the figures of each round. `wanted` has no effect: there is only one row.
    """
    with (
        running(servers.web()) as web,
        running(servers.web_on_gunicorn()) as gunicorn,
        running(servers.start("django", "relay_outbox")),
    ):
        product, peer = (Site(web), PRODUCT_PATH), (Site(gunicorn), PRODUCT_PATH)
        for site, _ in (product, peer):
            site.warm_up()
        for number in range(ROUNDS):
            for site, _ in (product, peer):
                site.connect()
            loads = _there_and_back(product, peer) if number % 2 else _there_and_back(peer, product)
            yield "orders-vs-gunicorn", Pair(loads[product].per_second, loads[peer].per_second)


def measure_cpu(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    """Compare the CPU time that the web server and PostgreSQL need per order with that of an earlier commit.

    If git does not find this commit, print the reason and yield nothing.
    """
    try:
        with checked_out(EARLIER) as checkout:
            yield from _measure_cpu_beside(servers, checkout)
    except NoSuchCommit as reason:
        print(f"orders-cpu is left out: {reason}", file=sys.stderr)


def _measure_cpu_beside(servers: Servers, checkout: Path) -> Iterator[tuple[str, Pair]]:
    # Both databases are new. In that of the other benchmarks, PostgreSQL would still be vacuuming their orders.
    url, earlier_url = servers.database("product"), servers.database("earlier", checkout=checkout)
    with (
        running(servers.web(DJANGO_SETTINGS_MODULE="commerce.settings", DATABASE_URL=url)) as web,
        running(servers.web_of_earlier(checkout, database_url=earlier_url)) as other,
    ):
        postgres = psutil.Process(servers.postgres.pid)
        sites = [
            Site(web, cpu=[web.family()[0], postgres], database_url=url),
            Site(other, cpu=[other.family()[0], postgres], database_url=earlier_url),
        ]
        for site in sites:
            site.warm_up()
        product, peer = [(site, PRODUCT_PATH) for site in sites]
        for number in range(ROUNDS):
            for site in sites:
                site.connect()
            loads = _there_and_back(product, peer) if number % 2 else _there_and_back(peer, product)
            yield "orders-cpu", Pair(loads[product].cpu_ms, loads[peer].cpu_ms)


def _there_and_back(first: Subject, second: Subject) -> dict[Subject, Load]:
    """Measure first, second, second, first: a gradual change of the machine's speed then affects both alike."""
    loads = [(subject, subject[0].load(subject[1])) for subject in (first, second, second, first)]
    return {subject: sum((load for of, load in loads if of == subject), Load()) for subject in (first, second)}


def measure_outage(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    """Compare the latency of the product's endpoint during an outage of Kafka with its latency before the outage.

    Yield, for each round, the name of the benchmark's row and both 99th percentiles in milliseconds. `wanted` has no
    effect: there is only one row.
    """
    with running(servers.web()) as web, running(servers.start("django", "relay_outbox")):
        site = Site(web)
        site.warm_up()
        for _ in range(OUTAGE_ROUNDS):
            site.connect()
            healthy = site.load(PRODUCT_PATH, seconds=OUTAGE_LOAD_S)
            servers.broker.go_down()
            try:
                without_kafka = site.load(PRODUCT_PATH, seconds=OUTAGE_LOAD_S, settle=False)
            finally:
                servers.broker.come_back()
            wait_until(lambda: database.pending() == 0, timeout=120)
            yield "orders-p99-without-kafka", Pair(without_kafka.p99, healthy.p99)


class Site:
    """A web server with a customer for each connection, because one customer's requests would wait for each other."""

    def __init__(self, web: WebServer, *, cpu: Sequence[psutil.Process] = (), database_url: str | None = None) -> None:
        """Register customers on `web`. `load` counts the CPU time of the processes `cpu` and of their children.

        `database_url` is the URL of the web server's database; None stands for the database of the benchmarks.
        """
        self._web = web
        self._cpu = cpu
        self._database_url = database_url
        self._customers = [Customer(web.url) for _ in range(CONNECTIONS)]
        self._connections: list[Connection] = []

    def connect(self) -> None:
        """Give each customer a new connection.

        Until the next call, `load` sends the requests to every path over these connections.
        """
        for connection in self._connections:
            connection.close()
        wait_until(lambda: not self._web.has_connections_to_close())
        self._connections = [Connection(self._web.url) for _ in self._customers]

    def warm_up(self, peers: Iterable[str] = ()) -> None:
        self.connect()
        self.load(PRODUCT_PATH, seconds=WARM_UP_S)
        for path in peers:
            self.load(path, seconds=PEER_WARM_UP_S)

    def load(self, path: str, *, seconds: float = LOAD_S, settle: bool = True) -> Load:
        """For `seconds`, let each customer place one order after another by POST requests to `path`.

        With `settle`, then wait until all events are sent.
        """
        requests = {
            connection: request("POST", path, token=customer.token, body=ORDER, headers={"X-User": str(customer.id)})
            for connection, customer in zip(self._connections, self._customers, strict=True)
        }
        before = sum(map(_cpu_seconds, self._cpu))
        load = closed_loop(requests, seconds=seconds)
        if settle:
            wait_until(lambda: database.pending(self._database_url) == 0, timeout=120)
        load.cpu_seconds = sum(map(_cpu_seconds, self._cpu)) - before
        return load


def _cpu_seconds(program: psutil.Process) -> float:
    """Return the CPU time of a program and all its children, in seconds."""
    seconds = 0.0
    for child in program.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # It has ended, and counts among the program's ended children.
            seconds += sum(child.cpu_times()[:2])
    return seconds + sum(program.cpu_times()[:4])
