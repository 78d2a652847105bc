"""pytest plugin that starts the session's PostgreSQL and Kafka broker before Django reads its settings."""

import os
import secrets
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import psycopg2
import pytest

from commerce.devserver import embedded_kafka, lifeline
from testkit.apache_kafka import ApacheKafka
from testkit.postgres import CrashingPostgres
from testkit.proxy import Proxy

_READ = ("order-events", "payment-commands", "shipping-commands", "fulfilment-replies")
TOPICS = (*_READ, *(f"{topic}-dlt" for topic in _READ), "notification-events", "sales-events")
PARTITIONS = 3

_cleanup = ExitStack()
_header_lines: list[str] = []


class Broker(Protocol):
    """The interface of the embedded broker and Apache Kafka for tests."""

    @property
    def bootstrap_servers(self) -> str: ...

    @property
    def creates_topics(self) -> bool:
        """Whether clients can create topics. If not, the broker creates a topic when a client first uses it."""

    def create_topic(self, name: str, *, partitions: int) -> None: ...

    def go_down(self) -> None:
        """Refuse all clients, and keep records and offsets."""

    def come_back(self) -> None: ...


broker: Broker
postgres: CrashingPostgres
proxy: Proxy
"""The proxy between Kafka and all its clients; set with `--broker=proxied` only."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--broker",
        choices=["embedded", "apache", "proxied"],
        default="embedded",
        help="the broker of the tests; proxied: Apache Kafka behind a proxy, and a PostgreSQL that survives crashes",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Start PostgreSQL and Kafka before pytest-django reads the settings, which it does in the same hook."""
    help_only = early_config.known_args_namespace.help
    if not help_only:
        lifeline.interrupt_on_signals()
        lifeline.follow_make()
        try:
            _start(early_config.known_args_namespace.broker)
        except BaseException:
            _cleanup.close()
            raise
    return (yield)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return _header_lines


def pytest_unconfigure(config: pytest.Config) -> None:
    _cleanup.close()


def _start(broker_name: str) -> None:
    # Variables of the shell or of a running `make run` must not reach the tests.
    our_prefixes = (
        "ADMIN_PATH",
        "DJANGO_",
        "HSTS_",
        "KAFKA_",
        "LOG_FORMAT",
        "METRICS_",
        "OTEL_",
        "PROMETHEUS_",
        "THROTTLE_",
        "TRUSTED_PROXIES",
    )
    for name in [name for name in os.environ if name.startswith(our_prefixes)]:
        del os.environ[name]
    home = Path(
        _cleanup.enter_context(tempfile.TemporaryDirectory(prefix="commerce-tests-", ignore_cleanup_errors=True))
    )
    _start_postgres(home, durable=broker_name == "proxied")
    bootstrap_servers = _start_broker(broker_name, home)
    os.environ.update(
        DJANGO_SECRET_KEY=secrets.token_urlsafe(48),
        JWT_SIGNING_KEY=secrets.token_urlsafe(48),
        DJANGO_ALLOWED_HOSTS="testserver,127.0.0.1",
        LOG_FORMAT="text",
        DATABASE_URL=postgres.url,
        KAFKA_BOOTSTRAP_SERVERS=bootstrap_servers,
        KAFKA_TOPIC_PARTITIONS=str(PARTITIONS),
        KAFKA_SESSION_TIMEOUT_MS="6000",
    )
    for topic in TOPICS:
        broker.create_topic(topic, partitions=PARTITIONS)
    _header_lines.append(f"broker: {broker} at {bootstrap_servers}")
    _header_lines.append(f"database: {_version(postgres.url)}")


def _start_postgres(home: Path, *, durable: bool) -> None:
    global postgres
    postgres = CrashingPostgres(home, durable=durable)
    _cleanup.callback(postgres.stop)
    postgres.start()


def _start_broker(name: str, home: Path) -> str:
    """Start the broker and return its bootstrap servers."""
    global broker, proxy
    if name == "embedded":
        embedded = embedded_kafka.EmbeddedKafka()
        _cleanup.callback(embedded.stop)
        os.environ.update(embedded_kafka.SETTINGS)
        broker = embedded
        return broker.bootstrap_servers
    broker = apache = ApacheKafka(home / "kafka")
    _cleanup.callback(apache.stop)
    if name == "proxied":
        proxy = Proxy(broker_port=apache.port)
        _cleanup.callback(proxy.stop)
        apache.advertised_port = proxy.port
        proxy.start()
    apache.start()
    return proxy.bootstrap_servers if name == "proxied" else apache.bootstrap_servers


def _version(url: str) -> str:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT version()")
            (version,) = cursor.fetchone() or ("PostgreSQL",)
            return str(version).split(" on ")[0]
    finally:
        connection.close()
