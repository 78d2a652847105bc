"""`manage.py watch_sales`: find anomalies of sales."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.template.defaultfilters import pluralize

from events.database import require_database
from events.kafka import KafkaUnreachable
from events.observing import exposition
from events.process.garbage import reduce_garbage_collection
from events.process.shutdown import Shutdown
from sales.anomalies.gauges import AnomalyCollector
from sales.anomalies.watching import POLL_INTERVAL_S, Watcher

COMPLETE_TIMEOUT_S = 30.0
"""Longest time that `--once` waits until the group `sales` has handled the events of the time to judge, in seconds."""


class Command(BaseCommand):
    help = (
        "Judge the sales of each interval after its end, and record anomalies and their events, until SIGTERM or "
        "SIGINT. Any number of watchers may run; they take turns."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once",
            action="store_true",
            help="judge all that has ended, print `judged N intervals, found M`, and end: with exit code 1 if the "
            f"group `sales` has not handled the events of that time within {COMPLETE_TIMEOUT_S:.0f} s",
        )
        exposition.add_arguments(parser)

    def handle(
        self, *args: Any, once: bool, metrics_port: int | None, liveness_file: Path | None, **options: Any
    ) -> None:
        shutdown = Shutdown()
        require_database()
        reduce_garbage_collection()
        with exposition.observed(
            metrics_port=metrics_port, liveness_file=liveness_file, collector=AnomalyCollector()
        ) as alive:

            def stopping() -> bool:
                alive()
                return shutdown.requested()

            with closing(Watcher(stopping=stopping, wait=shutdown.wait)) as watcher:
                if once:
                    self._judge_once(watcher, shutdown)
                else:
                    watcher.run()

    def _judge_once(self, watcher: Watcher, shutdown: Shutdown) -> None:
        deadline = time.monotonic() + COMPLETE_TIMEOUT_S
        try:
            while (judgement := watcher.judge()) is None:
                if time.monotonic() > deadline or shutdown.wait(POLL_INTERVAL_S):
                    raise CommandError(
                        "The group sales has not handled all events of the time to judge, or another watcher has its "
                        "turn. See `manage.py consumer_lag --group sales`, and run it again."
                    )
        except KafkaUnreachable as error:
            raise CommandError(f"Kafka does not answer, so nothing was judged: {str(error).strip()}") from error
        except Error as error:
            raise CommandError(f"The database failed, run it again: {str(error).strip()}") from error
        steps, found = judgement.steps, len(judgement.events)
        self.stdout.write(f"judged {steps} interval{pluralize(steps)}, found {found}")
