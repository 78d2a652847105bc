"""A PostgreSQL and a Kafka for the benchmarks, and the product's processes on them."""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from benchmarks import database, earlier
from commerce.devserver import embedded_kafka
from commerce.devserver.embedded_postgres import EmbeddedPostgres
from testkit.apache_kafka import ApacheKafka
from testkit.processes import CHECKOUT, ProductProcess, WebServer
from testkit.servers import Broker

Process = TypeVar("Process", bound=ProductProcess)

PARTITIONS = 3
TOPICS = (
    *("order-events", "order-events-dlt", "notification-events", "sales-events"),
    *("payment-commands", "shipping-commands", "fulfilment-replies"),
)
PEER_SETTINGS = "benchmarks.peers.settings"


class Servers:
    """The PostgreSQL and the Kafka that all benchmarks share. The methods start the product's processes on them."""

    def __init__(self, *, home: Path, postgres: EmbeddedPostgres, broker: Broker) -> None:
        self.broker = broker
        self.postgres = postgres
        self.is_apache = isinstance(broker, ApacheKafka)
        self._home = home
        self._logs = 0

    @property
    def postgres_version(self) -> str:
        return str(database.value("SELECT version()")).split(" on ")[0]

    def web(self, **env: str) -> WebServer:
        """Start the web server as it is deployed, but with the views of `benchmarks.peers` added."""
        return WebServer(log=self._log("web"), env={"DJANGO_SETTINGS_MODULE": PEER_SETTINGS, **env})

    def web_on_gunicorn(self) -> WebServer:
        """Start the product on gunicorn instead of granian."""
        return WebServer(log=self._log("gunicorn"), launcher=["benchmarks.peers.on_gunicorn"])

    def web_of_earlier(self, checkout: Path, *, database_url: str) -> WebServer:
        """Start the web server of the commit `earlier.EARLIER` as it was deployed."""
        env = {"DATABASE_URL": database_url}
        return WebServer(log=self._log("earlier"), env=env, program=earlier.GUNICORN, checkout=checkout)

    def start(self, *command: str, **env: str) -> ProductProcess:
        """Start a process of the product: `python -m` with the arguments `command`, such as `django relay_outbox`."""
        return ProductProcess(*command, log=self._log(command[-1].lstrip("-")), env=env)

    def start_peer(self, module: str, *arguments: str) -> ProductProcess:
        return ProductProcess(*arguments, log=self._log(module), launcher=[f"benchmarks.peers.{module}"])

    def database(self, name: str, *, checkout: Path = CHECKOUT) -> str:
        """Create a database `name`, migrate it with the code in the folder `checkout`, and return its URL."""
        database.execute(f'CREATE DATABASE "{name}"')
        url = self.postgres.url.replace("/commerce?", f"/{name}?")
        manage("migrate", "--verbosity=0", checkout=checkout, DATABASE_URL=url)
        return url

    def _log(self, name: str) -> Path:
        self._logs += 1
        return self._home / f"{self._logs}-{name}.log"


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """Stop the process after the block. If the block fails, print the end of the process's log."""
    try:
        yield process
    except BaseException:
        print(process.log.read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.stop()
        process.kill()


@contextmanager
def servers() -> Iterator[Servers]:
    """Run PostgreSQL and Kafka during the block, with their addresses in this process's environment.

    The database is migrated, and the topics exist. If Apache Kafka cannot start, the embedded broker runs in its place.
    Load Django's settings only inside the block, because they read the environment once.
    """
    for name in [name for name in os.environ if name.startswith(("KAFKA_", "THROTTLE_", "DJANGO_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="commerce-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        postgres = EmbeddedPostgres(home)
        postgres.start()
        broker = _start_broker(home)
        try:
            os.environ.update(
                DJANGO_SETTINGS_MODULE="commerce.settings",
                DJANGO_SECRET_KEY=secrets.token_urlsafe(48),
                JWT_SIGNING_KEY=secrets.token_urlsafe(48),
                DJANGO_ALLOWED_HOSTS="127.0.0.1",
                DATABASE_URL=postgres.url,
                KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap_servers,
                KAFKA_TOPIC_PARTITIONS=str(PARTITIONS),
            )
            manage("migrate", "--verbosity=0")
            for topic in TOPICS:
                broker.create_topic(topic, partitions=PARTITIONS)
            yield Servers(home=home, postgres=postgres, broker=broker)
        finally:
            broker.stop()
            postgres.stop()


def _start_broker(home: Path) -> ApacheKafka | embedded_kafka.EmbeddedKafka:
    apache = ApacheKafka(home / "kafka")
    try:
        apache.start()
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        print(f"The benchmarks use the embedded broker and leave some rows out: {reason}", file=sys.stderr)
        os.environ.update(embedded_kafka.SETTINGS)
        return embedded_kafka.EmbeddedKafka()
    return apache


def manage(*arguments: str, checkout: Path = CHECKOUT, **env: str) -> None:
    """Run a command by `python -m django`, because manage.py would read the settings of a running `make run`."""
    command = [sys.executable, "-m", "django", *arguments]
    subprocess.run(command, cwd=checkout, env={**os.environ, **env}, check=True)
