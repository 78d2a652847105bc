"""`make run`: the whole system on this machine, with servers of its own where the environment names none."""

import errno
import fcntl
import io
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import django
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import Error, connection
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from commerce.devserver import lifeline
from commerce.devserver.control import Control
from commerce.devserver.embedded_kafka import SETTINGS as EMBEDDED_KAFKA_SETTINGS
from commerce.devserver.embedded_kafka import EmbeddedKafka
from commerce.devserver.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresFailed, data_home
from commerce.devserver.supervisor import Supervisor

CHECKOUT = Path(__file__).resolve().parent.parent.parent
VAR = CHECKOUT / "var"
RUN_ENV = VAR / "run.env"
METRICS = VAR / "metrics"
HOST = "127.0.0.1"
POSTGRESQL, KAFKA = "PostgreSQL", "Kafka broker"
"""Names of the servers that a run starts where the environment names none."""
OUR_VARIABLES = (
    *("ADMIN_PATH", "DJANGO_", "DATABASE_URL", "HSTS_", "JWT_SIGNING_KEY", "KAFKA_", "METRICS_TOKEN", "PORT"),
    *(
        "CONSUMER_",
        "CORS_ALLOWED_ORIGINS",
        "LOG_FORMAT",
        "OTEL_",
        "OUTBOX_",
        "PROMETHEUS_",
        "THROTTLE_",
        "TRUSTED_PROXIES",
        "WEB_",
    ),
)
"""What the names of all variables in `.env.example` start with."""
FIRST_ORDER_TIMEOUT = 60
"""Seconds until the first order must have become a notification."""
RECONCILE_INTERVAL = 60
"""Seconds. The embedded broker forgets what it cannot hold, so that a run looks for lost events."""


class CannotRun(Exception):
    """Said in one line, and the run ends."""


TROUBLES = (OSError, EmbeddedPostgresFailed, CommandError, Error, InconsistentMigrationHistory)


@contextmanager
def _troubles_end_the_run(*, data_are_ours: bool = True) -> Iterator[None]:
    """Raise CannotRun for what goes wrong; where data of an earlier run may be why, its last line says how to go on."""
    try:
        yield
    except TROUBLES as error:
        said = str(error).strip()
        raise CannotRun(f"{said}\n{_way_on(said)}" if data_are_ours else said) from error


def _way_on(said: str) -> str:
    if os.strerror(errno.ENOSPC) in said:
        return "To go on: make room on the disk, then `make run`."
    if os.strerror(errno.EACCES) in said or os.strerror(errno.EROFS) in said:
        return "To go on: let this user write there, or have the files' owner call `make reset`, which drops them."
    return "To go on: mend that, or start from nothing with `make reset`, which drops what earlier runs have kept."


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_in_order)
    lifeline.follow_make()
    try:
        with ExitStack() as cleanup:
            return _run(cleanup)
    except (CannotRun, EmbeddedPostgresFailed, ImproperlyConfigured) as error:
        print(f"Cannot run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


_asked_to_stop = threading.Event()


def _exit_in_order(number: int, frame: FrameType | None) -> None:
    _asked_to_stop.set()
    raise KeyboardInterrupt


def _run(cleanup: ExitStack) -> int:
    port = _free_port()
    servers: dict[str, str] = {}
    with _troubles_end_the_run():
        VAR.mkdir(exist_ok=True)
        cleanup.enter_context(locked(VAR / "run.lock", "it is running already in this folder. Stop it first."))
        os.environ.update(_environment(cleanup, port, servers))
        cleanup.enter_context(_run_env())
    _prepare_database_and_topics(servers)
    if _asked_to_stop.is_set():
        # Python ignores what is raised while it cleans up after an object, which is where the signal may have come.
        raise KeyboardInterrupt

    supervisor = Supervisor()
    os.environ.update(_control_channel(cleanup, supervisor))
    for name, words in {
        "web": ("-m", "commerce.web_server", "--bind", f"{HOST}:{port}"),
        "consumer": ("manage.py", "consume_order_events"),
        "relay": ("manage.py", "relay_outbox"),
    }.items():
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        supervisor.add_process(name, [sys.executable, *words], env=env, cwd=CHECKOUT)
    threading.Thread(target=_watch, args=(supervisor, f"http://{HOST}:{port}", servers), daemon=True).start()
    supervisor.loop()
    return 0 if supervisor.stopped_by_signal else 1


# --- Before anything runs ----------------------------------------------------------------------


def _free_port() -> int:
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
    """Hold the lock. Raises CannotRun with `otherwise` where another process holds it."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotRun(otherwise) from error
        yield


def _environment(cleanup: ExitStack, port: int, servers: dict[str, str]) -> dict[str, str]:
    """What the processes need beyond the environment we were given; starts the servers it does not name.

    Each of those gets a line in `servers`.
    """
    given = os.environ
    made = {"DJANGO_SETTINGS_MODULE": "commerce.settings", "PORT": str(port)}
    if "DJANGO_DEBUG" not in given:
        made["DJANGO_DEBUG"] = "true"
    for key in ("DJANGO_SECRET_KEY", "JWT_SIGNING_KEY", "METRICS_TOKEN"):
        if key not in given:
            made[key] = secrets.token_urlsafe(48)
    if "PROMETHEUS_MULTIPROC_DIR" not in given:
        made["PROMETHEUS_MULTIPROC_DIR"] = str(_empty_metrics())
    if "DATABASE_URL" not in given:
        _say("Starting the embedded PostgreSQL")
        postgres = EmbeddedPostgres(data_home(CHECKOUT))
        cleanup.callback(postgres.stop)
        postgres.start()
        servers[POSTGRESQL] = f"pid {postgres.pid}, its log is {postgres.log}"
        made["DATABASE_URL"] = postgres.url
    if "KAFKA_BOOTSTRAP_SERVERS" not in given:
        _say("Starting the embedded Kafka broker")
        kafka = EmbeddedKafka()
        cleanup.callback(kafka.stop)
        servers[KAFKA] = f"{kafka.bootstrap_servers}, within pid {os.getpid()}"
        made |= {name: value for name, value in EMBEDDED_KAFKA_SETTINGS.items() if name not in given}
        made["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
        if "DATABASE_URL" in made:
            _own_kafka.append(kafka)
        _create_topics_of(kafka, int(given.get("KAFKA_TOPIC_PARTITIONS") or 3))
    return made


_own_kafka: list[EmbeddedKafka] = []
"""The embedded broker, where the database is embedded as well: nobody's own data are for playing."""


def _control_channel(cleanup: ExitStack, supervisor: Supervisor) -> dict[str, str]:
    """How the web processes reach this one; nothing where the page that uses it is not shown."""
    if not (settings.DEBUG and _own_kafka):
        return {}
    control = Control(processes=supervisor, broker=_own_kafka[0])
    cleanup.callback(control.close)
    return control.environment


def _empty_metrics() -> Path:
    """A folder of metrics that all processes of this run share, and none of an earlier one."""
    shutil.rmtree(METRICS, ignore_errors=True)
    METRICS.mkdir()
    return METRICS


def _create_topics_of(kafka: EmbeddedKafka, partitions: int) -> None:
    for topic in ("order-events", "order-events-dlt", "notification-events"):
        kafka.create_topic(topic, partitions=partitions)


@contextmanager
def _run_env() -> Iterator[None]:
    """Tells manage.py in other terminals of this run, as long as it lasts."""
    settings_of_run = {name: value for name, value in os.environ.items() if name.startswith(OUR_VARIABLES)}
    part = RUN_ENV.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text("".join(f"{name}={value}\n" for name, value in settings_of_run.items()))
    part.rename(RUN_ENV)
    try:
        yield
    finally:
        RUN_ENV.unlink(missing_ok=True)


def _prepare_database_and_topics(servers: Container[str]) -> None:
    _say("Migrating the database, creating topics and demo accounts")
    django.setup()
    try:
        # A database that DATABASE_URL names is the user's own, and not for `make reset` to drop.
        with _troubles_end_the_run(data_are_ours=POSTGRESQL in servers):
            _refuse_newer_database()
            call_command("migrate", verbosity=0)
            if KAFKA in servers:
                _forget_the_broker_before()
            if settings.DEBUG:
                call_command("create_demo_accounts")
        with _troubles_end_the_run(data_are_ours=False):
            call_command("create_topics", stdout=io.StringIO())
            # What was on its way when the last run ended is not on a broker that starts empty.
            _repair_lost_events()
    finally:
        connection.close()


def _refuse_newer_database() -> None:
    """Raises CommandError where newer code has migrated the database: it may forbid what this code writes."""
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    ours = {app.label for app in apps.get_app_configs() if Path(app.path).resolve().parent == CHECKOUT}
    unknown = sorted(
        f"{app}.{name}"
        for app, name in MigrationRecorder(connection).applied_migrations()
        if app in ours and (app, name) not in known
    )
    if unknown:
        raise CommandError(f"newer code has migrated this database, and this code does not know {', '.join(unknown)}.")


def _forget_the_broker_before() -> None:
    """The embedded broker starts empty, so that what the database says of records at its offsets holds no longer."""
    # Models can be imported once Django is set up.
    from events.consuming import dead_letter_limit, death_marks

    dead_letter_limit.forget()
    death_marks.forget()


def _repair_lost_events() -> None:
    report = io.StringIO()
    call_command("reconcile_events", repair=True, stdout=report)
    if not report.getvalue().startswith("missing 0,"):
        _say(f"Lost events are sent again: {report.getvalue().strip()}")


# --- While everything runs ---------------------------------------------------------------------


def _watch(supervisor: Supervisor, site: str, servers: Mapping[str, str]) -> None:
    """Show that the whole way works, then look for lost events from time to time."""
    try:
        from commerce.devserver.overview import overview

        _place_first_order(site)
        _say(f"Running\n{overview(site=site, servers=servers, pids=supervisor.pids)}")
    except Exception as error:  # noqa: BLE001 - a thread that dies would say nothing
        supervisor.fail(f"The first order did not become a notification: {error}")
        return
    finally:
        connection.close()
    print(f"READY {site}", flush=True)
    while True:
        time.sleep(RECONCILE_INTERVAL)
        try:
            _repair_lost_events()
        except Exception as error:  # noqa: BLE001 - the next look may succeed
            _say(f"Could not look for lost events: {str(error).strip()}")
        finally:
            connection.close()


def _place_first_order(site: str) -> None:
    """Raises OSError where the API refuses, TimeoutError where nothing comes of the order."""
    _wait_until(lambda: _answers(f"{site}/health/ready"), "the web server does not answer")
    if not settings.DEBUG:
        return
    _say("Placing an order")
    from rest_framework_simplejwt.tokens import AccessToken

    from commerce.accounts import demo_accounts
    from commerce.api.throttling import UserThrottle, forget_requests

    # Without a login: passwords, lockouts and limits are meant for strangers, and must not keep a run from starting.
    customer = demo_accounts.customer()
    token = str(AccessToken.for_user(customer))

    def call(path: str, body: Any = None) -> str:
        forget_requests(scope=UserThrottle.scope, client=customer.pk)
        return _call(f"{site}{path}", body, token)

    body = call("/api/orders", {"items": [{"productId": 1, "quantity": 2, "price": 100.00}]})
    print(body, flush=True)
    order_id = json.loads(body)["id"]

    def notification() -> str | None:
        newest = json.loads(call("/api/notifications?limit=200"))
        return next((json.dumps(one, ensure_ascii=False) for one in newest if one["orderId"] == order_id), None)

    print(_wait_until(notification, f"order {order_id} has no notification"), flush=True)


def _call(url: str, body: Any = None, token: str | None = None) -> str:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    # Past any proxy of the environment: the site is on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(url, data, headers), timeout=10) as response:
        return cast(str, response.read().decode())


def _answers(url: str) -> bool:
    try:
        _call(url)
    except OSError:
        return False
    return True


def _wait_until(condition: Callable[[], Any], otherwise: str) -> Any:
    deadline = time.monotonic() + FIRST_ORDER_TIMEOUT
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.1)
    raise TimeoutError(f"{otherwise} after {FIRST_ORDER_TIMEOUT} s")


def _say(what: str) -> None:
    print(f"== {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
