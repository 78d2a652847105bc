"""The attempts at a dead letter: the first failure of its message, and each replay with its outcome.

A letter has a row for each of its replays, and one for its first failure as soon as it is replayed, because the next
failure overwrites the letter's own reason. So the replay limit bounds the rows of a letter. They end with the letter.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db.models import QuerySet
from django.db.models.functions import Left

from events.models import DeadLetter, DeadLetterAttempt
from events.wire.timestamps import now

FIRST = 0
"""Number of the attempt at the message itself. Its replays have the numbers from 1."""
REASON_LIMIT_CHARS = 200
"""Limit of the shown message of an error, in characters. The letter has up to 8 KiB of its last one."""


class Attempt(NamedTuple):
    """One attempt, as admin shows it."""

    number: int
    sent_at: datetime | None
    """When a person replayed the message; None for the first attempt."""
    failed_at: datetime | None
    """None while no failure is known: the replay is under way, or the group has handled it."""
    reason: str
    """Name and message of the error; empty without a failure."""

    @property
    def is_replay(self) -> bool:
        return self.number > FIRST


def begin_attempt(letter: DeadLetter) -> None:
    """Record the newest replay of `letter`, which its `replay_count` includes, in the caller's transaction."""
    if letter.replay_count == 1:
        failure = {"error_class": letter.error_class, "error_message": letter.error_message}
        first = DeadLetterAttempt(letter=letter, number=FIRST, failed_at=letter.created_at, **failure)
        DeadLetterAttempt.objects.bulk_create([first], ignore_conflicts=True)
    # These rows exist if an operator has set the count back.
    DeadLetterAttempt.objects.filter(letter=letter, number__gt=letter.replay_count).delete()
    DeadLetterAttempt.objects.update_or_create(
        letter=letter,
        number=letter.replay_count,
        defaults={"sent_at": now(), "failed_at": None, "error_class": "", "error_message": ""},
    )


def record_failure(letters: QuerySet[DeadLetter], *, number: int | None, error_class: str, error_message: str) -> None:
    """Record that replay `number` of the one letter in `letters` has failed, in the caller's transaction.

    The number comes from the message, which any program may have written. So only a row that `begin_attempt` made
    changes, and an unknown number changes nothing.
    """
    begun = DeadLetterAttempt.objects.filter(letter__in=letters, number=number, number__gt=FIRST)
    begun.update(failed_at=now(), error_class=error_class, error_message=error_message)


def attempts_at(letters: Iterable[DeadLetter]) -> dict[int, list[Attempt]]:
    """Return the recorded attempts at each of `letters` by its id, oldest first.

    A letter that was never replayed has its first failure only. A letter that an earlier release replayed lacks the
    attempts up to then.
    """
    ids = [letter.pk for letter in letters]
    found: dict[int, list[Attempt]] = defaultdict(list)
    failure = ("error_class", Left("error_message", REASON_LIMIT_CHARS))
    rows = DeadLetterAttempt.objects.filter(letter__in=ids).order_by("letter", "number")
    for letter_id, number, sent_at, failed_at, *error in rows.values_list(
        "letter", "number", "sent_at", "failed_at", *failure
    ):
        found[letter_id].append(Attempt(number, sent_at, failed_at, reason_of(*error)))
    never_replayed = DeadLetter.objects.filter(pk__in=set(ids) - found.keys(), replay_count=0)
    for letter_id, created_at, *error in never_replayed.values_list("pk", "created_at", *failure):
        found[letter_id] = [Attempt(FIRST, None, created_at, reason_of(*error))]
    return dict(found)


def reason_of(error_class: str, message: str) -> str:
    """Return an error in one line, such as "Poison: Not an order event"; an empty text without an error."""
    return f"{short_name(error_class)}: {message}" if error_class else ""


def short_name(error_class: str) -> str:
    """Return the name of a class without its module."""
    return error_class.rpartition(".")[2]
