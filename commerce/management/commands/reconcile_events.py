"""`manage.py reconcile_events`: is there a change or an event that got lost?"""

from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from commerce.operations.reconcile import find_missing, repair
from events.kafka import KafkaUnreachable
from events.subscriptions import Subscription, UnknownGroup, subscription, subscriptions
from notifications.subscriptions import NOTIFICATIONS


class Command(BaseCommand):
    help = (
        "Look for order changes without an outbox row, and for published events that were neither handled nor will be. "
        "Ends with 1 while something is missing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--repair", action="store_true", help="send them again under their own event id")
        parser.add_argument("--group", help="one consumer group; without it, every registered group")

    def handle(self, *args: Any, group: str | None, **options: Any) -> None:
        try:
            missing = find_missing(_groups(group))
            repaired = repair(missing) if options["repair"] else 0
        except (KafkaUnreachable, Error) as error:
            raise CommandError(f"Could not reconcile: {str(error).strip()}") from error
        self.stdout.write(f"missing {len(missing)}, repaired {repaired}")
        if repaired < len(missing):
            raise CommandError("Events are missing: send them again with --repair.")


def _groups(group: str | None) -> list[Subscription[Any]]:
    """Return the groups to look at. One that is not registered is a second group of `consume_order_events`."""
    if group is None:
        return subscriptions()
    try:
        return [subscription(group)]
    except UnknownGroup:
        return [replace(NOTIFICATIONS, group=group)]
