"""`python -m commerce.web_server`: run granian with this site's settings."""

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
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import granian.wsgi
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from commerce.patches import run_exit_handlers_in_this_worker
from events.process.shutdown import GRACE_S, SIGNALS, end_at_once_until_ready

KEEP_ALIVE_MS = 75_000
"""Longest time to receive a request's headers, and to keep an idle connection between two requests, in milliseconds.

It exceeds the idle timeout of clients and proxies. If the server closed an idle connection first, a request could
arrive at that moment and be lost.
"""
CONNECTIONS_PER_WORKER = 10_000
"""Largest number of open connections per worker. Each takes some KiB, and a thread only during a request."""
SPARE_FILES = 256
"""Number of file descriptors per worker that client connections must leave free."""
PARENT_CHECK_INTERVAL_S = 1.0
"""Seconds between two checks by which a worker finds out whether its server is alive."""
THREAD_IDLE_S = 600
"""Seconds until an idle thread ends. It is granian's maximum, because a thread that ends loses its connection to the
database."""


def main() -> None:
    end_at_once_until_ready()
    options = _options()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
    try:
        _require_free(*options.bind)
        # Django imports prometheus_client, which looks for the folder at import.
        with _shared_metrics():
            _serve(*options.bind)
    except CannotServe as error:
        sys.exit(f"Cannot serve: {error}")


class CannotServe(Exception):
    """The server cannot start. `main` prints the exception's message as one line on stderr, and exits with 1."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m commerce.web_server",
        description="Answer HTTP requests until SIGTERM or SIGINT. Requests in hand are finished first.",
    )
    parser.add_argument("--bind", type=_address, default="127.0.0.1:8080", help="HOST:PORT (default: %(default)s)")
    return parser.parse_args()


def _address(text: str) -> tuple[str, int]:
    """Return the host and the port in `HOST:PORT`. Raise ValueError if the text is malformed."""
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 2**16:
        raise ValueError
    return host.strip("[]"), int(port)


def _require_free(host: str, port: int) -> None:
    """Raise CannotServe if this process cannot listen on the address, for example because another process does.

    granian itself would share the port with that process.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotServe(f"cannot listen on {host}:{port} ({error.strerror}). Give another --bind") from error


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """Create a folder in which the workers share their metrics, and delete it after the block.

    The environment variable PROMETHEUS_MULTIPROC_DIR names the folder. If it is set already, its
    folder is used, and stays.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="commerce-metrics-")
    try:
        yield
    finally:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def _serve(host: str, port: int) -> None:
    """Run the server until a signal ends it. Raise CannotServe if the settings are invalid."""
    from django.core.exceptions import ImproperlyConfigured

    multiprocessing.set_start_method("fork")
    # The application is loaded before the fork: workers share its memory, and a new worker can answer at once.
    try:
        from commerce.wsgi import application
    except ImproperlyConfigured as error:
        raise CannotServe(str(error)) from error
    from django.conf import settings

    from events.process.garbage import reduce_garbage_collection

    reduce_garbage_collection()
    # A signal may reach a worker twice, from its terminal and from the server. granian's handler deadlocks if it
    # interrupts itself, so a thread of the worker calls it once. Signals are blocked before the fork, so none is lost.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS),
    )
    # granian copies the environment variables into the environ of every request. Django would treat HTTP_... variables
    # as headers, and its debug pages would show all of them.
    vars(granian.wsgi)["os"] = SimpleNamespace(environ={})
    Granian(
        "commerce.wsgi:application",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        # The proxy in front handles HTTP/2, so this server needs no parser for it.
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
    """Raise the limit of open files to its maximum. Return how many connections it allows per worker.

    The result is at most `CONNECTIONS_PER_WORKER`.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return (
        CONNECTIONS_PER_WORKER
        if most == resource.RLIM_INFINITY
        else min(CONNECTIONS_PER_WORKER, max(1, most - SPARE_FILES))
    )


class IgnoreThreadsWarning(logging.Filter):
    """A log filter that drops granian's warning about many threads. Threads that wait for slow clients use no CPU."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "Python threads" not in record.getMessage()


def _log_config(site: dict[str, Any]) -> dict[str, Any]:
    """Return the site's logging configuration, extended for granian's log lines."""
    return site | {
        "filters": {"ignore_threads_warning": {"()": IgnoreThreadsWarning}},
        "loggers": site["loggers"] | {"_granian": {"filters": ["ignore_threads_warning"]}},
    }


def _in_each_worker(application: Any) -> Callable[[], Any]:
    """Return the function that granian calls in a new worker to load the application."""

    def begin() -> Any:
        from commerce.operations.lag_history import start_recording

        end_at_once_until_ready()
        threading.Thread(target=_end_with_server, args=(os.getppid(),), name="end-worker", daemon=True).start()
        run_exit_handlers_in_this_worker()
        start_recording()
        return application

    return begin


def _end_with_server(server: int) -> None:
    """Wait for SIGTERM or the death of the server, whose process id is `server`, and then end this worker.

    A worker without its server would keep the port open and run old code.
    """
    while signal.sigtimedwait([signal.SIGTERM], PARENT_CHECK_INTERVAL_S) is None and os.getppid() == server:
        pass
    handler: Any = signal.getsignal(signal.SIGTERM)
    handler(signal.SIGTERM, None)
    # The worker does not wait longer for clients that never finish their requests. granian's own limit would sometimes
    # warn about a worker that has already ended.
    time.sleep(GRACE_S)
    os._exit(0)


if __name__ == "__main__":
    main()
