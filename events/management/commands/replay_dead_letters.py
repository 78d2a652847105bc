"""`manage.py replay_dead_letters`: send the messages of dead letters to their topics again."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, reset_queries

from events.consuming.replay import Outcome, describe, open_letters, preview, replay
from events.database import require_database
from events.models import DeadLetter
from events.process.arguments import positive, positive_float
from events.process.shutdown import Shutdown

MAX_PAUSE_S = 24 * 60 * 60.0
"""Longest pause between two replays, in seconds, even if `--rate` asks for a longer one."""


class Command(BaseCommand):
    help = (
        "Send open dead letters to their topics again, oldest first. Without a filter, all of them are sent. "
        "A letter is closed when its replay is handled, and stays open if the replay fails."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--id", type=positive, action="append", help="the letter with this number; may be given several times"
        )
        parser.add_argument("--group", help="only letters of this consumer group")
        parser.add_argument("--event-type", help="only letters of this type, such as ORDER_CREATED")
        parser.add_argument("--limit", type=positive, help="at most this many letters")
        parser.add_argument("--rate", type=positive_float, help="at most this many letters a second")
        parser.add_argument("--dry-run", action="store_true", help="change nothing, and list what would be replayed")

    def handle(
        self,
        *args: Any,
        group: str | None,
        event_type: str | None,
        limit: int | None,
        rate: float | None,
        dry_run: bool,
        **options: Any,
    ) -> None:
        shutdown = Shutdown()
        require_database()
        ids = options["id"]
        process = preview if dry_run else replay
        pause = min(1 / rate, MAX_PAUSE_S) if rate and not dry_run else 0.0
        replayed = 0
        try:
            _require_open(ids or [])
            letters = open_letters(ids=ids, group=group, event_type=event_type)
            for letter in islice(self._process_each(letters, process, pause, shutdown), limit):
                replayed += 1
                if dry_run:
                    self.stdout.write(describe(letter))
        except Error as error:
            raise CommandError(f"The database failed, run it again for the rest: {str(error).strip()}") from error
        finally:
            self.stdout.write(f"{'would replay' if dry_run else 'replayed'} {replayed}")

    def _process_each(
        self, letter_ids: Iterable[int], process: Callable[..., Outcome], pause: float, shutdown: Shutdown
    ) -> Iterator[DeadLetter]:
        """Call `process` with each id until a shutdown is requested. Yield the letters that are not refused.

        The reason of a refusal is written to stderr. The pause comes only after a letter that is not refused.
        """
        next_at = 0.0
        for letter_id in letter_ids:
            shutdown.wait(max(0.0, next_at - time.monotonic()))
            if shutdown.requested():
                return
            reset_queries()  # With DEBUG on, Django keeps every statement, values included.
            outcome = process(letter_id=letter_id)
            if outcome.refusal:
                self.stderr.write(outcome.refusal)
                continue
            yield outcome.letter
            next_at = time.monotonic() + pause


def _require_open(ids: Iterable[int]) -> None:
    """Raise CommandError if any of these letters does not exist or is not open. The error names each such letter."""
    states = dict(DeadLetter.objects.filter(pk__in=ids).values_list("pk", "state"))
    problems = [f"there is no letter {letter_id}" for letter_id in ids if letter_id not in states]
    problems += [f"letter {pk} is {state} already" for pk, state in states.items() if state != DeadLetter.State.OPEN]
    if problems:
        raise CommandError(f"Nothing is replayed: {'; '.join(problems)}. Name only open ones; --dry-run lists them.")
