"""`manage.py prune_events`: move or delete outbox rows that were published long ago and that no group needs any more.

Events of orders are moved to the history, unless `--discard-history` is given. Other rows are deleted.
"""

import re
import sys
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, reset_queries

from commerce.operations.prune import prune
from events.database import require_database
from events.process.progress import ProgressLine
from events.process.shutdown import Shutdown
from events.wire.timestamps import now

UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


class Command(BaseCommand):
    help = (
        "Clear the outbox of rows that were published long ago and whose event was handled. Events of orders are moved "
        "to the history, other rows are deleted. Rows that still have to be sent or handled stay, whatever their age."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            default="30d",
            help="minimum time since publication: a number of d, h, m or s (default: 30d)",
        )
        parser.add_argument(
            "--discard-history",
            action="store_true",
            help="delete events of orders, too: their orders can no longer be verified or shown as of an earlier time",
        )

    def handle(self, *args: Any, older_than: str, discard_history: bool, **options: Any) -> None:
        published_before = _ago(older_than)
        shutdown = Shutdown()
        require_database()
        pruned = 0
        progress = ProgressLine(sys.stderr)
        try:
            for removed in prune(
                published_before=published_before,
                discards_history=discard_history,
                report=progress.of("outbox"),
            ):
                pruned += removed
                reset_queries()  # In debug mode Django collects every statement.
                if shutdown.requested():
                    break
        except Error as error:
            raise CommandError(f"The database failed. Run it again for the rest: {str(error).strip()}") from error
        finally:
            progress.clear()
            self.stdout.write(f"pruned {pruned}")


def _ago(age: str) -> datetime:
    """Return the time that is `age`, such as `30d`, ago. Raise CommandError if `age` is malformed."""
    parts = re.fullmatch(r"([0-9]{1,15})([dhms])", age)
    if parts is None or int(parts[1]) == 0:
        raise CommandError(f"--older-than is {age!r}: give a positive whole number with d, h, m or s, such as 30d.")
    try:
        return now() - timedelta(**{UNITS[parts[2]]: int(parts[1])})
    except OverflowError as error:
        raise CommandError(f"--older-than is {age}, which is before the year 1: give a smaller number.") from error
