"""The worker process: its command-line options, its start and its end."""

import logging
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.db import Error

from events.database import require_database
from events.database_clock import database_now
from events.observing import exposition
from events.process.garbage import reduce_garbage_collection
from events.process.shutdown import Shutdown
from events.process.together import Heartbeats, run_together
from events.work.gauges import WorkCollector
from events.work.kinds import Kind, Results
from events.work.outcomes import Done, Failed, ServiceUnavailable, TryAgain
from events.work.threads import worker_of
from events.work.worker import POLL_INTERVAL_S, Worker

logger = logging.getLogger(__name__)

OPTIONS = ("once", "metrics_port", "liveness_file")
"""Names of the options that `add_arguments` adds and `run` takes."""


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--once",
        action="store_true",
        help="do all that is due now, print how much was done, and end: with exit code 1 if something was not done",
    )
    exposition.add_arguments(parser)


def run(*kinds: Kind[Any], once: bool, metrics_port: int | None, liveness_file: Path | None) -> Results[Any]:
    """Do the work of `kinds` until SIGTERM or SIGINT, and return an empty list.

    With `once`, try all work that is due now, and return the outcomes. Each of several kinds gets a thread; with `once`
    they take turns. Without any kind (if the work is turned off), the process waits for the signal; with `once` it ends
    immediately.

    Raises CommandError if the process cannot start, and with `once` if the service or the database is not available.
    """
    shutdown = Shutdown()
    require_database()
    reduce_garbage_collection()
    with exposition.observed(
        metrics_port=metrics_port, liveness_file=liveness_file, collector=WorkCollector(lambda: kinds)
    ) as alive:
        heartbeats = Heartbeats(alive, [kind.name for kind in kinds])

        def worker(kind: Kind[Any]) -> Worker[Any]:
            def stopping() -> bool:
                heartbeats.beat_of(kind.name)
                return shutdown.requested()

            logger.info("Working on %s", kind.name)
            return worker_of(kind, stopping=stopping, wait=shutdown.wait)

        if once:
            return [result for kind in kinds for result in _sweep(worker(kind))]
        if kinds:
            run_together({kind.name: worker(kind).run for kind in kinds}, shutdown=shutdown)
        while not shutdown.requested():
            alive()
            shutdown.wait(POLL_INTERVAL_S)
    logger.info("Stopped cleanly")
    return []


def report(results: Results[Any], output: OutputWrapper, *, verb: str) -> None:
    """Print how much work was done, such as `sent 3`. `verb` is a past participle, such as "sent".

    Raises CommandError if some of the work failed or must be tried again.
    """
    output.write(f"{verb} {sum(isinstance(outcome, Done) for _, outcome in results)}")
    undone = [outcome.reason for _, outcome in results if isinstance(outcome, Failed | TryAgain)]
    if undone:
        raise CommandError(f"{len(undone)} could not be {verb}; the first: {undone[0]}")


def _sweep(worker: Worker[Any]) -> Results[Any]:
    try:
        return worker.sweep(due_until=database_now())
    except ServiceUnavailable as error:
        raise CommandError(f"{error}. Run it again for the rest.") from error
    except Error as error:
        raise CommandError(f"The database failed, run it again for the rest: {str(error).strip()}") from error
