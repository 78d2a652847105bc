"""`manage.py verify_orders`: compare every order with its events."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, reset_queries

from events.database import require_database
from events.process.progress import ProgressLine
from orders.verification import verify_orders

NAMED_ORDERS = 20
"""Number of wrong orders that the command names."""


class Command(BaseCommand):
    help = (
        "Compare status, total, owner, time and number of events of every order with its events in outbox and history. "
        "Name the first wrong orders and what differs, and exit with 1 if there is one."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--allow-discarded",
            action="store_true",
            help="do not count an order as wrong because events are missing, which prune_events --discard-history or "
            "an earlier release has deleted",
        )

    def handle(self, *args: Any, allow_discarded: bool, **options: Any) -> None:
        require_database()
        checked = wrong = incomplete = 0
        progress = ProgressLine(sys.stderr)
        try:
            for step in verify_orders(allows_discarded=allow_discarded, progress=progress):
                for sentence in step.wrong[: max(0, NAMED_ORDERS - wrong)]:
                    progress.clear()
                    self.stderr.write(sentence)
                checked += step.checked
                wrong += len(step.wrong)
                incomplete += step.incomplete
                reset_queries()  # In debug mode Django collects every statement.
        except Error as error:
            raise CommandError(f"The database failed. Run it again: {str(error).strip()}") from error
        finally:
            progress.clear()
        self.stdout.write(f"checked {checked}, wrong {wrong}")
        if incomplete:
            self.stdout.write(f"not compared {incomplete}, because events are missing")
        if wrong:
            raise CommandError("Orders differ from their events: see docs/history.md.")
