"""`manage.py reconcile_events`: find and repair lost changes and events."""

import sys
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, reset_queries

from commerce.operations.reconcile import Repaired, find_missing, repair
from events.kafka import KafkaUnreachable
from events.process.progress import ProgressLine
from events.subscriptions import Subscription, UnknownGroup, subscription, subscriptions
from notifications.subscriptions import NOTIFICATIONS


class Command(BaseCommand):
    help = (
        "Find order changes without a row in outbox and history, and published events that a group has not handled and "
        "will not read. Exit with 1 while something is missing. Name each order that cannot be repaired, because "
        "another program has changed it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--repair", action="store_true", help="send the missing events again under their own event ids"
        )
        parser.add_argument("--group", help="one consumer group; without it, every registered group")

    def handle(self, *args: Any, group: str | None, **options: Any) -> None:
        progress = ProgressLine(sys.stderr)
        missing = repaired = hopeless = 0
        try:
            for step in find_missing(_groups(group), progress=progress):
                done = repair(step) if options["repair"] else Repaired(0, {})
                missing += len(step)
                repaired += done.events
                problems = [*step.unknown, *done.refused.values()]
                hopeless += len(step.unknown) + sum(order_id in done.refused for order_id, _ in step.changes)
                if problems:
                    progress.clear()
                for problem in problems:
                    self.stderr.write(problem)
                reset_queries()  # In debug mode Django collects every statement.
        except (KafkaUnreachable, Error) as error:
            raise CommandError(f"Could not reconcile: {str(error).strip()}") from error
        finally:
            progress.clear()
        self.stdout.write(f"missing {missing}, repaired {repaired}")
        if missing > repaired + hopeless:
            raise CommandError("Events are missing: send them again with --repair.")
        if hopeless:
            raise CommandError("Events are missing, and the orders named above cannot be repaired.")


def _groups(group: str | None) -> list[Subscription[Any]]:
    """Return the subscription of `group`, or by default all registered subscriptions.

    A group that is not registered gets the subscription of the notifications under its own name, because
    `consume_order_events --group` runs such a group in the same way.
    """
    if group is None:
        return subscriptions()
    try:
        return [subscription(group)]
    except UnknownGroup:
        return [replace(NOTIFICATIONS, group=group)]
