"""`manage.py relay_outbox`: send the events that the fast path did not send."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.template.defaultfilters import pluralize

from events.database import require_database
from events.database_clock import database_now
from events.kafka import KafkaRefuses
from events.models import OutboxEvent, OutboxQuerySet
from events.observing import exposition
from events.observing.readings import PipelineCollector
from events.outbox.relay import Relay
from events.process.garbage import reduce_garbage_collection
from events.process.shutdown import Shutdown
from events.subscriptions import subscriptions


class Command(BaseCommand):
    help = "Send the events that were committed but did not reach Kafka. Any number of relays may run; they take turns."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once",
            action="store_true",
            help="wait for the turn, send all pending events of any age, print `sent N`, and end: "
            "with exit code 1 if an event could not be sent",
        )
        exposition.add_arguments(parser)

    def handle(
        self, *args: Any, once: bool, metrics_port: int | None, liveness_file: Path | None, **options: Any
    ) -> None:
        shutdown = Shutdown()
        require_database()
        reduce_garbage_collection()
        with exposition.observed(
            metrics_port=metrics_port, liveness_file=liveness_file, collector=PipelineCollector(subscriptions)
        ) as alive:

            def stopping() -> bool:
                alive()
                return shutdown.requested()

            with closing(Relay(stopping=stopping, wait=shutdown.wait)) as relay:
                try:
                    if once:
                        self._send_everything(relay, shutdown)
                    else:
                        relay.run()
                except KafkaRefuses as error:
                    raise CommandError(str(error)) from error

    def _send_everything(self, relay: Relay, shutdown: Shutdown) -> None:
        try:
            started_at = database_now()
            sent, outage = relay.sweep(older_than=timedelta(0), wait_for_turn=True)
            self.stdout.write(f"sent {sent}")
            parked = OutboxEvent.objects.filter(parked_at__gte=started_at).count()
            left = OutboxEvent.objects.pending().filter(OutboxQuerySet.recorded_by(started_at))
            pending = left.count()
            why_pending = _why_pending(left, pending, outage, shutdown) if pending else ""
        except Error as error:
            raise CommandError(f"The database failed, run it again for the rest: {str(error).strip()}") from error
        problems = []
        if parked:
            were, they = pluralize(parked, "was,were"), pluralize(parked, "it,they")
            problems.append(f"{parked} {were} parked, because {they} can never be sent: admin shows the reason")
        if pending:
            problems.append(f"{pending} {pluralize(pending, 'is,are')} pending: {why_pending}")
        if problems:
            unsent = parked + pending
            raise CommandError(f"{unsent} event{pluralize(unsent)} could not be sent. {'; '.join(problems)}")


def _why_pending(left: OutboxQuerySet, pending: int, outage: Exception | None, shutdown: Shutdown) -> str:
    if outage:
        return str(outage).strip()
    if shutdown.requested():
        return "the relay was told to stop, run it again"
    if left.sendable().exists():
        return f"{pluralize(pending, 'it was,they were')} committed during the sweep, run it again"
    return f"{pluralize(pending, 'it,each')} waits behind a parked event of its stream"
