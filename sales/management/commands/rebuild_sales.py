"""`manage.py rebuild_sales`: make the sums of sales anew from the events."""

import sys
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.template.defaultfilters import pluralize

from events.database import Report, require_database
from events.process.progress import ProgressLine
from events.process.shutdown import Shutdown
from sales.sums.rebuilding import AlreadyRunning, EventsLost, rebuild


class Interrupted(Exception):
    """A signal has told the command to end."""


class Command(BaseCommand):
    help = (
        "Make the sums of sales anew from the events that the group has handled, while everything runs. Readers see "
        "the old sums until all new ones are there. If it is killed, they keep the old ones, and it can be run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--drop-lost",
            action="store_true",
            help="go on if no copy is left of some events: their sums are then gone for good",
        )

    def handle(self, *args: Any, drop_lost: bool, **options: Any) -> None:
        shutdown = Shutdown()
        require_database()
        progress = ProgressLine(sys.stderr)
        try:
            events = rebuild(report=_until(shutdown.requested, progress.of("events")), drops_lost=drop_lost)
        except AlreadyRunning as error:
            raise CommandError("Another rebuild is running: wait for its end.") from error
        except Interrupted as error:
            raise CommandError("Stopped. Readers see the old sums: run it again.") from error
        except EventsLost as error:
            raise CommandError(
                f"No copy is left of {error.number} handled event{pluralize(error.number)} (prune_events "
                "--discard-history deletes them). A rebuild would lose their sums, so the old ones stay. To rebuild "
                "without them, add --drop-lost."
            ) from error
        except Error as error:
            raise CommandError(
                f"The database failed. Readers see the old sums: run it again: {str(error).strip()}"
            ) from error
        finally:
            progress.clear()
        self.stdout.write(f"rebuilt from {events} event{pluralize(events)}")


def _until(stopping: Callable[[], bool], report: Report) -> Report:
    """Return a function that calls `report`, but raises Interrupted once `stopping` returns true."""

    def checked(done: float) -> None:
        if stopping():
            raise Interrupted
        report(done)

    return checked
