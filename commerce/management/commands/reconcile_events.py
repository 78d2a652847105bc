"""`manage.py reconcile_events`: find and repair lost changes and events."""

from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from commerce.operations.reconcile import Repaired, find_missing, repair
from events.kafka import KafkaUnreachable
from events.subscriptions import Subscription, UnknownGroup, subscription, subscriptions
from notifications.subscriptions import NOTIFICATIONS


class Command(BaseCommand):
    help = (
        "Find order changes without an outbox row, and published events that a group has not handled and will not "
        "read. Exit with 1 while something is missing. Name each order that cannot be repaired, because another "
        "program has changed it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--repair", action="store_true", help="send the missing events again under their own event ids"
        )
        parser.add_argument("--group", help="one consumer group; without it, every registered group")

    def handle(self, *args: Any, group: str | None, **options: Any) -> None:
        try:
            missing = find_missing(_groups(group))
            repaired = repair(missing) if options["repair"] else Repaired(0, {})
        except (KafkaUnreachable, Error) as error:
            raise CommandError(f"Could not reconcile: {str(error).strip()}") from error
        self.stdout.write(f"missing {len(missing)}, repaired {repaired.events}")
        problems = [*missing.unknown, *repaired.refused.values()]
        for problem in problems:
            self.stderr.write(problem)
        refused = sum(order_id in repaired.refused for order_id, _ in missing.changes)
        if len(missing) > repaired.events + len(missing.unknown) + refused:
            raise CommandError("Events are missing: send them again with --repair.")
        if problems:
            raise CommandError("Events are missing, and the orders named above cannot be repaired.")


def _groups(group: str | None) -> list[Subscription[Any]]:
    """Return the subscriptions to check. An unregistered group is taken for one of `consume_order_events --group`."""
    if group is None:
        return subscriptions()
    try:
        return [subscription(group)]
    except UnknownGroup:
        return [replace(NOTIFICATIONS, group=group)]
