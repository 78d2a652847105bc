"""`python -m commerce.web_server`: granian with the settings that this site needs."""

import argparse
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import granian.wsgi
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from commerce.patches import run_exit_handlers_in_this_worker
from events.process.shutdown import GRACE_S, SIGNALS, end_at_once_until_ready

KEEP_ALIVE_MS = 75_000
"""How long a client may take to send a request's headers, and how long a connection may rest between two requests.
It is longer than clients and proxies keep an idle connection: the side that closes first must not get a request."""
CONNECTIONS_PER_WORKER = 10_000
"""Open connections of a worker at most. A connection takes some KiB, and a thread only while a request is answered."""
SPARE_FILES = 256
"""File descriptors of a worker that are not clients' connections."""
LOOK_EVERY_S = 1.0
"""Between two looks of a worker whether its server lives."""
THREAD_IDLE_S = 600
"""The longest time that granian allows. A thread that ends closes its database connection."""


def main() -> None:
    end_at_once_until_ready()
    options = _options()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
    try:
        _require_free(*options.bind)
        # prometheus_client looks for the folder when it is imported, which Django does.
        with _shared_metrics():
            _serve(*options.bind)
    except CannotServe as error:
        sys.exit(f"Cannot serve: {error}")


class CannotServe(Exception):
    """Said in one line, and the server ends with 1."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m commerce.web_server",
        description="Answer HTTP requests until SIGTERM or SIGINT. Requests in hand are finished first.",
    )
    parser.add_argument("--bind", type=_address, default="127.0.0.1:8080", help="HOST:PORT (default: %(default)s)")
    return parser.parse_args()


def _address(text: str) -> tuple[str, int]:
    """Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 2**16:
        raise ValueError
    return host.strip("[]"), int(port)


def _require_free(host: str, port: int) -> None:
    """Raises CannotServe where another process listens there: granian would share the port with it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotServe(f"{host}:{port} cannot be listened on ({error.strerror}). Give another --bind") from error


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder in which the workers share their metrics, unless the environment names one."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="commerce-metrics-")
    try:
        yield
    finally:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def _serve(host: str, port: int) -> None:
    """Back when a signal has ended the server. Raises CannotServe."""
    from django.core.exceptions import ImproperlyConfigured

    multiprocessing.set_start_method("fork")
    # Loaded before the workers are forked: they share its memory, and a new worker answers at once.
    try:
        from commerce.wsgi import application
    except ImproperlyConfigured as error:
        raise CannotServe(str(error)) from error
    from django.conf import settings

    from events.process.garbage import reduce_garbage_collection

    reduce_garbage_collection()
    # A signal may reach a worker twice, from its terminal and from the server. granian's handler deadlocks when it
    # interrupts itself, so a thread of the worker calls it once. Blocked from before the fork on, no signal gets lost.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS),
    )
    # granian copies the environment variables into the environ of every request. Django takes those that are named
    # HTTP_... for headers, and its debug pages show them all.
    vars(granian.wsgi)["os"] = SimpleNamespace(environ={})
    Granian(
        "commerce.wsgi:application",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        # HTTP/2 is for the proxy in front, which has to parse what strangers send anyway.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_MS),
        websockets=False,
        workers=settings.WEB_CONCURRENCY,
        blocking_threads=settings.WEB_THREADS,
        blocking_threads_idle_timeout=THREAD_IDLE_S,
        backpressure=_connections_per_worker(),
        log_dictconfig=_log_config(settings.LOGGING),
        respawn_failed_workers=True,
    ).serve(target_loader=_in_each_worker(application), wrap_loader=False)


def _connections_per_worker() -> int:
    """As many as the limit of open files allows, which is raised as far as it may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return (
        CONNECTIONS_PER_WORKER
        if most == resource.RLIM_INFINITY
        else min(CONNECTIONS_PER_WORKER, max(1, most - SPARE_FILES))
    )


class ThreadsAreChosen(logging.Filter):
    """Drops granian's warning about many threads: those that wait for slow clients take no processor."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "Python threads" not in record.getMessage()


def _log_config(site: dict[str, Any]) -> dict[str, Any]:
    """The site's logging, for granian's lines as well."""
    return site | {
        "filters": {"threads_are_chosen": {"()": ThreadsAreChosen}},
        "loggers": site["loggers"] | {"_granian": {"filters": ["threads_are_chosen"]}},
    }


def _in_each_worker(application: Any) -> Callable[[], Any]:
    """Make what granian calls in a new worker to get the application."""

    def begin() -> Any:
        end_at_once_until_ready()
        threading.Thread(target=_end_when_told, args=(os.getppid(),), name="end-when-told", daemon=True).start()
        run_exit_handlers_in_this_worker()
        _forget_dead_processes()
        return application

    return begin


def _end_when_told(server: int) -> None:
    """End this worker on SIGTERM, or when its server has died: it would keep the port and answer with old code."""
    while signal.sigtimedwait([signal.SIGTERM], LOOK_EVERY_S) is None and os.getppid() == server:
        pass
    handler: Any = signal.getsignal(signal.SIGTERM)
    handler(signal.SIGTERM, None)
    # Clients that never finish their requests are not waited for. granian's own limit sometimes warns of a worker that
    # has ended by then.
    time.sleep(GRACE_S)
    os._exit(0)


def _forget_dead_processes() -> None:
    """Take the processes that have ended out of the metrics that tell of living ones."""
    from prometheus_client.multiprocess import mark_process_dead

    pids = {int(file.stem.rpartition("_")[2]) for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("*_*.db")}
    for pid in pids:
        if not Path(f"/proc/{pid}").exists():
            # Another worker that starts may be doing the same.
            with suppress(FileNotFoundError):
                mark_process_dead(pid)


if __name__ == "__main__":
    main()
