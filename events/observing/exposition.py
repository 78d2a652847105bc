"""Monitoring options of every long-running command: a port for metrics, and a liveness file."""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from django.core.management import CommandError, CommandParser
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.registry import Collector

from events.process.arguments import port


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--metrics-port", type=port, help="answer Prometheus on this port, on every address (default: no port)"
    )
    parser.add_argument(
        "--liveness-file",
        type=Path,
        help="touch this file in every iteration of the loop: about every second, at least every two minutes",
    )


@contextmanager
def observed(
    *, metrics_port: int | None, liveness_file: Path | None, collector: Collector
) -> Iterator[Callable[[], None]]:
    """Serve metrics during this block, and yield a function that touches `liveness_file`.

    The caller's loop calls the function in every iteration. The metrics include the gauges of `collector`. Without a
    port no metrics are served, and without a file the function does nothing. Raises CommandError before the block if
    the port or the file cannot be used. The function raises no error: if it fails, the file keeps its old time.
    """
    with ExitStack() as cleanup:
        if metrics_port is not None:
            cleanup.enter_context(_metrics(metrics_port, collector))
        yield _toucher(liveness_file) if liveness_file is not None else lambda: None


@contextmanager
def _metrics(port: int, collector: Collector) -> Iterator[None]:
    """Serve metrics without authentication: the network must let only Prometheus reach the port."""
    try:
        server, thread = start_http_server(port)
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise CommandError(f"Port {port} {reason}: choose another one, --metrics-port 9102.") from error
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
        server.shutdown()
        server.server_close()
        thread.join()


def _toucher(file: Path) -> Callable[[], None]:
    try:
        file.touch()
    except OSError as error:
        raise CommandError(f"--liveness-file {file} cannot be written: {error.strerror}") from error

    def touch() -> None:
        # A disk that fails later must not end the loop. The age of the file shows the failure.
        with suppress(OSError):
            file.touch()

    return touch
