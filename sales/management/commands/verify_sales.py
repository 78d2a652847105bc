"""`manage.py verify_sales`: compare the sums of sales with the events."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.template.defaultfilters import pluralize

from events.database import require_database
from events.process.progress import ProgressLine
from sales.sums.rebuilding import is_interrupted
from sales.sums.verifying import verify


class Command(BaseCommand):
    help = (
        "Compare the sums of sales with the events that the group has handled, in one snapshot, while everything runs. "
        "Name the first wrong ones, and exit with 1 if there are any."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        require_database()
        progress = ProgressLine(sys.stderr)
        try:
            found = verify(report=progress.of("events"))
            interrupted = is_interrupted()
        except Error as error:
            raise CommandError(f"The database failed. Run it again: {str(error).strip()}") from error
        finally:
            progress.clear()
        for problem in found.problems:
            self.stderr.write(problem)
        self.stdout.write(f"checked {found.customers} customers, wrong {found.wrong_customers}")
        self.stdout.write(f"checked {found.intervals} intervals, wrong {found.wrong_intervals}")
        if interrupted:
            self.stderr.write(
                "A rebuild was killed, and consumers still add each event to its unfinished sums: run rebuild_sales."
            )
        if found.lost:
            self.stderr.write(
                f"No copy is left of {found.lost} handled event{pluralize(found.lost)} (prune_events --discard-history "
                "deletes them), so their sums cannot be compared. Intervals that contain them appear as wrong."
            )
        if found.wrong_intervals or found.wrong_customers:
            raise CommandError("Sums are wrong: run rebuild_sales to make them anew from the events.")
