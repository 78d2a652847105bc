"""`manage.py relay_outbox`: send the events that the fast path did not."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from events import observability
from events.database import require_database
from events.garbage import collect_seldom
from events.kafka import KafkaRefuses
from events.models import OutboxEvent
from events.relay import Relay
from events.shutdown import Shutdown
from events.timestamps import now


class Command(BaseCommand):
    help = "Send the events that were committed but did not reach Kafka. Any number of relays may run; they take turns."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once",
            action="store_true",
            help="wait for the turn, send everything pending whatever its age, print `sent N`, and end: "
            "with 1 if something could not be sent",
        )
        observability.add_arguments(parser)

    def handle(
        self, *args: Any, once: bool, metrics_port: int | None, liveness_file: Path | None, **options: Any
    ) -> None:
        shutdown = Shutdown()
        require_database()
        collect_seldom()
        with observability.observed(
            metrics_port=metrics_port, liveness_file=liveness_file, group=settings.NOTIFICATION_CONSUMER_GROUP
        ) as alive:

            def stopping() -> bool:
                alive()
                return shutdown.requested()

            with closing(Relay(stopping=stopping, wait=shutdown.wait)) as relay:
                try:
                    if once:
                        self._send_everything(relay)
                    else:
                        relay.run()
                except KafkaRefuses as error:
                    raise CommandError(str(error)) from error

    def _send_everything(self, relay: Relay) -> None:
        started_at = now()
        sent, outage = relay.sweep(older_than=timedelta(0), wait_for_turn=True)
        self.stdout.write(f"sent {sent}")
        due = OutboxEvent.objects.filter(published_at=None, created_at__lte=started_at)
        left = due.exclude(parked_at__lt=started_at).count()
        if left or outage:
            raise CommandError(f"{left} events could not be sent: {str(outage or 'see the parked ones').strip()}")
