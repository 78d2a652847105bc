"""`manage.py reconcile_events`: is there a change or an event that got lost?"""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from commerce.operations.reconcile import find_missing, repair
from events.kafka import KafkaUnreachable


class Command(BaseCommand):
    help = (
        "Look for order changes without an outbox row, and for published events that were neither handled nor will be. "
        "Ends with 1 while something is missing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--repair", action="store_true", help="send them again under their own event id")
        parser.add_argument("--group", default=settings.NOTIFICATION_CONSUMER_GROUP)

    def handle(self, *args: Any, group: str, **options: Any) -> None:
        try:
            missing = find_missing(group=group)
            repaired = repair(missing) if options["repair"] else 0
        except (KafkaUnreachable, Error) as error:
            raise CommandError(f"Could not reconcile: {str(error).strip()}") from error
        self.stdout.write(f"missing {len(missing)}, repaired {repaired}")
        if repaired < len(missing):
            raise CommandError("Events are missing: send them again with --repair.")
