"""One site for all fault tests. A fixture repairs it after every test."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import uuid4

import pytest

from testkit import servers
from testkit.apache_kafka import ApacheKafka
from testkit.customer import Customer
from testkit.postgres import CrashingPostgres
from testkit.processes import ProductProcess, WebServer
from testkit.proxy import Proxy
from tests.faults.oracle import Oracle

CONSUME = ("django", "consume_order_events")
RELAY = ("django", "relay_outbox")
NO_KAFKA = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
"""Environment variables of a process that cannot reach Kafka."""
ONE_WORKER = {"WEB_CONCURRENCY": "1"}
"""Environment variables of a web server with one worker process."""
SHORT_SESSION = {"KAFKA_SESSION_TIMEOUT_MS": "2000"}
"""Environment variables of a consumer that a test kills or freezes: the group removes it after two seconds."""
CUSTOMERS = 4
LOG_LIMIT_CHARACTERS = 5_000
"""Largest number of characters that a failed test prints of each process's log."""


class Site(NamedTuple):
    """The processes of the product that run during all fault tests."""

    web: WebServer
    consumer: ProductProcess
    relay: ProductProcess


class OwnTopic(NamedTuple):
    """A topic for a single test. The test may use its name for a group as well."""

    name: str

    @property
    def dead_letters(self) -> str:
        return f"{self.name}-dlt"

    @property
    def env(self) -> dict[str, str]:
        """The environment variables of a process that uses this topic for order events."""
        return {"DJANGO_SETTINGS_MODULE": "testkit.own_topic_settings", "OWN_TOPIC": self.name}


class Start(Protocol):
    """A function that starts a further process for one test. The process is killed at the end of the test."""

    def __call__(self, *command: str, launcher: list[str] = ..., **env: str) -> ProductProcess: ...


class StartWeb(Protocol):
    """A function that starts a separate web server for one test. The server is killed at the end of the test."""

    def __call__(self, *, launcher: list[str] = ..., **env: str) -> WebServer: ...


@pytest.fixture(scope="session", autouse=True)
def _needs_proxied_broker(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--broker") != "proxied":
        pytest.exit("The fault tests need a Kafka behind a proxy: run `make test-faults`", returncode=4)


@pytest.fixture(scope="session", autouse=True)
def _quiet_requests() -> None:
    """Turn off httpx's log: its lines about thousands of requests would hide the output of a failed test."""
    logging.getLogger("httpx").setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def proxy() -> Proxy:
    return servers.proxy


@pytest.fixture(scope="session")
def kafka() -> ApacheKafka:
    assert isinstance(servers.broker, ApacheKafka)
    return servers.broker


@pytest.fixture(scope="session")
def postgres() -> CrashingPostgres:
    return servers.postgres


@pytest.fixture(scope="session")
def site(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    logs = tmp_path_factory.mktemp("logs")
    site = Site(
        web=WebServer(log=logs / "web.log"),
        consumer=ProductProcess(*CONSUME, log=logs / "consumer.log"),
        relay=ProductProcess(*RELAY, log=logs / "relay.log"),
    )
    yield site
    for process in site:
        process.kill()


@pytest.fixture(scope="module")
def customers(site: Site) -> Iterator[list[Customer]]:
    """Register the customers anew for each module, because access tokens last 15 minutes."""
    customers = [Customer(site.web.url) for _ in range(CUSTOMERS)]
    yield customers
    for customer in customers:
        customer.http.close()


@pytest.fixture
def oracle(customers: list[Customer]) -> Iterator[Oracle]:
    oracle = Oracle(customers)
    yield oracle
    oracle.close()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ProductProcess]]:
    """Return the list of processes that the test starts, and kill them at its end."""
    started: list[ProductProcess] = []
    yield started
    for process in started:
        process.kill()
        _show(process)


@pytest.fixture
def start(started: list[ProductProcess], tmp_path: Path) -> Start:
    def start(*command: str, launcher: list[str] | None = None, **env: str) -> ProductProcess:
        log = tmp_path / f"{len(started)}-{Path(command[-1]).name}.log"
        started.append(ProductProcess(*command, log=log, env=env, launcher=launcher or []))
        return started[-1]

    return start


@pytest.fixture
def start_web(started: list[ProductProcess], tmp_path: Path) -> StartWeb:
    def start_web(*, launcher: list[str] | None = None, **env: str) -> WebServer:
        web = WebServer(log=tmp_path / f"{len(started)}-web.log", env=env, launcher=launcher or [])
        started.append(web)
        return web

    return start_web


@pytest.fixture
def own_topic(kafka: ApacheKafka) -> OwnTopic:
    """Create an empty topic, and a topic for its dead letters."""
    own_topic = OwnTopic(f"order-events-{uuid4().hex[:8]}")
    for name in (own_topic.name, own_topic.dead_letters):
        kafka.create_topic(name, partitions=servers.PARTITIONS)
    return own_topic


@pytest.fixture(autouse=True)
def _healed(site: Site, proxy: Proxy, kafka: ApacheKafka, postgres: CrashingPostgres) -> Iterator[None]:
    """Repair the site after the test, so that the next test finds all its parts running."""
    shown_before = [process.log.stat().st_size for process in site]
    yield
    proxy.heal()
    if postgres.is_down():
        postgres.start()
    if kafka.is_running():
        kafka.thaw()
    else:
        kafka.start()
    for process, already_shown in zip(site, shown_before, strict=True):
        if process.process.poll() is None:
            process.thaw()
        else:
            process.start()
        _show(process, skipping=already_shown)


def _show(process: ProductProcess, *, skipping: int = 0) -> None:
    """Print the end of a process's log, without the log's first `skipping` bytes. pytest shows it for a failed test."""
    text = process.log.read_bytes()[skipping:].decode(errors="replace")
    print(f"--- {process.log.name}\n{text[-LOG_LIMIT_CHARACTERS:]}")
