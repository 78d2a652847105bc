"""What the processes of a run share: a locked folder, a free port, PostgreSQL and Kafka, and environment variables."""

import errno
import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from commerce.devserver.embedded_kafka import SETTINGS as EMBEDDED_KAFKA_SETTINGS
from commerce.devserver.embedded_kafka import EmbeddedKafka
from commerce.devserver.embedded_postgres import EmbeddedPostgres, data_home
from commerce.devserver.run.messages import CannotRun, say
from commerce.environment import Environment

CHECKOUT = Path(__file__).resolve().parents[3]
VAR = CHECKOUT / "var"
RUN_ENV = VAR / "run.env"
METRICS = VAR / "metrics"
MAILS = VAR / "mail"
PROVIDER_BOOK = VAR / "provider.sqlite3"
HOST = "127.0.0.1"
POSTGRESQL, KAFKA = "PostgreSQL", "Kafka broker"
"""Names in the output for the servers that a run starts if no environment variable gives their address."""
VARIABLE_PREFIXES = (
    *("ADMIN_PATH", "CONSUMER_", "CORS_ALLOWED_ORIGINS", "DATABASE_", "DJANGO_", "EMAIL_", "FULFILMENT_", "HSTS_"),
    *("JWT_SIGNING_KEY", "KAFKA_", "LOG_FORMAT", "METRICS_TOKEN", "OTEL_", "OUTBOX_", "PORT", "PROMETHEUS_"),
    *("PAYMENT_", "PROVIDER_", "SALES_", "SHIPPING_", "SITE_URL", "THROTTLE_", "TRUSTED_PROXIES", "WEB_"),
)
"""Prefixes that cover the names of all variables in `.env.example`, except those that only docker compose reads."""


@dataclass
class Servers:
    """The servers that a run has started because no environment variable gives their address."""

    lines: dict[str, str] = field(default_factory=dict)
    """A line of output about each server, by its name (`POSTGRESQL` or `KAFKA`)."""
    broker: EmbeddedKafka | None = None
    """The embedded broker, which the start page may stop. None unless broker and database are both embedded."""
    needs_provider: bool = False
    """Whether the run also starts the development provider, because a variable with a provider's URL is missing."""


def free_port() -> int:
    port = os.environ.get("PORT") or "8080"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(port)))
        except (OSError, OverflowError, ValueError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "is taken" if taken else f"cannot be used ({error})"
            raise CannotRun(f"port {port} {reason}. Choose another one: make run PORT=8081") from error
    return int(port)


@contextmanager
def locked(path: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock on the file. Raise CannotRun with the message `otherwise` if another process holds it."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotRun(otherwise) from error
        yield


def environment(cleanup: ExitStack, port: int, servers: Servers) -> dict[str, str]:
    """Start PostgreSQL and Kafka, each unless a variable gives its address, and describe them in `servers`.

    Return the variables that the run adds to its environment, for a site on `port`. `cleanup` stops the servers.
    """
    given = os.environ
    made = {"DJANGO_SETTINGS_MODULE": "commerce.settings", "PORT": str(port)}
    if "DJANGO_DEBUG" not in given:
        made["DJANGO_DEBUG"] = "true"
    if "EMAIL_URL" not in given:
        made["EMAIL_URL"] = f"filemail://{MAILS}"
    for key in ("DJANGO_SECRET_KEY", "JWT_SIGNING_KEY", "METRICS_TOKEN"):
        if key not in given:
            made[key] = secrets.token_urlsafe(48)
    made |= _provider(given, servers)
    if "PROMETHEUS_MULTIPROC_DIR" not in given:
        made["PROMETHEUS_MULTIPROC_DIR"] = str(_empty_metrics())
    if "DATABASE_URL" not in given:
        say("Starting the embedded PostgreSQL")
        postgres = EmbeddedPostgres(data_home(CHECKOUT))
        cleanup.callback(postgres.stop)
        postgres.start()
        servers.lines[POSTGRESQL] = f"pid {postgres.pid}, its log is {postgres.log}"
        made["DATABASE_URL"] = postgres.url
    if "KAFKA_BOOTSTRAP_SERVERS" not in given:
        say("Starting the embedded Kafka broker")
        kafka = EmbeddedKafka()
        cleanup.callback(kafka.stop)
        servers.lines[KAFKA] = f"{kafka.bootstrap_servers}, within pid {os.getpid()}"
        made |= {name: value for name, value in EMBEDDED_KAFKA_SETTINGS.items() if name not in given}
        made["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
        if "DATABASE_URL" in made:
            servers.broker = kafka
        _create_topics_of(kafka, partitions(given))
    return made


def _provider(given: Mapping[str, str], servers: Servers) -> dict[str, str]:
    """Return the variables of the development provider, and its URL for each provider whose URL is not in `given`.

    The providers are those of payments and of shipping. If a URL is missing, set `needs_provider` of `servers`. If both
    are given, return no variables.
    """
    urls = [name for name in ("PAYMENT_PROVIDER_URL", "SHIPPING_PROVIDER_URL") if name not in given]
    if not urls:
        return {}
    servers.needs_provider = True
    port = given.get("PROVIDER_PORT") or _unused_port()
    book = given.get("PROVIDER_BOOK") or str(PROVIDER_BOOK)
    return {"PROVIDER_PORT": port, "PROVIDER_BOOK": book} | dict.fromkeys(urls, f"http://{HOST}:{port}")


def _unused_port() -> str:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return str(probe.getsockname()[1])


def _empty_metrics() -> Path:
    """Empty the metrics folder that all processes of this run share, and return its path."""
    shutil.rmtree(METRICS, ignore_errors=True)
    METRICS.mkdir()
    return METRICS


def partitions(given: Mapping[str, str]) -> int:
    variables = Environment(given)
    partitions = variables.count("KAFKA_TOPIC_PARTITIONS", default=3)
    try:
        variables.refuse_problems()
    except ImproperlyConfigured as error:
        raise CannotRun(str(error)) from error
    return partitions


def _create_topics_of(kafka: EmbeddedKafka, partitions: int) -> None:
    read = ("order-events", "payment-commands", "shipping-commands", "fulfilment-replies")
    for topic in (*read, *(f"{topic}-dlt" for topic in read), "notification-events", "sales-events"):
        kafka.create_topic(topic, partitions=partitions)


@contextmanager
def run_env() -> Iterator[None]:
    """Write the run's settings to `var/run.env` for manage.py in other terminals, and delete the file at the end."""
    settings_of_run = {name: value for name, value in os.environ.items() if name.startswith(VARIABLE_PREFIXES)}
    part = RUN_ENV.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text("".join(f"{name}={value}\n" for name, value in settings_of_run.items()))
    part.rename(RUN_ENV)
    try:
        yield
    finally:
        RUN_ENV.unlink(missing_ok=True)
