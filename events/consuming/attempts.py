"""The attempts at a dead letter: the first failure of its message, and each replay with its outcome.

Each replay of a letter has a row. The first replay also adds a row for the first failure, because the next failure
overwrites the letter's own reason. The replay limit therefore bounds the number of a letter's rows. They are deleted
with the letter.
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
"""Number of the first attempt, at the original message. The replays are numbered 1, 2, 3 ..."""
REASON_LIMIT_CHARS = 200
"""Largest number of characters of an error's message in an `Attempt`. The letter keeps 8192 of the last error."""


class Attempt(NamedTuple):
    """One attempt to handle a dead letter's message, as admin shows it."""

    number: int
    sent_at: datetime | None
    """Time of the replay; None for the first attempt."""
    failed_at: datetime | None
    """Time of the failure. None if the replay has not failed: it is under way, or the group has handled it."""
    reason: str
    """Name and message of the error; empty without a failure."""

    @property
    def is_replay(self) -> bool:
        return self.number > FIRST


def begin_attempt(letter: DeadLetter) -> None:
    """Record the newest replay of `letter` in the caller's transaction. `replay_count` already includes this replay."""
    if letter.replay_count == 1:
        failure = {"error_class": letter.error_class, "error_message": letter.error_message}
        first = DeadLetterAttempt(letter=letter, number=FIRST, failed_at=letter.created_at, **failure)
        DeadLetterAttempt.objects.bulk_create([first], ignore_conflicts=True)
    # Rows with a larger number exist if an operator has set the count of replays back.
    DeadLetterAttempt.objects.filter(letter=letter, number__gt=letter.replay_count).delete()
    DeadLetterAttempt.objects.update_or_create(
        letter=letter,
        number=letter.replay_count,
        defaults={"sent_at": now(), "failed_at": None, "error_class": "", "error_message": ""},
    )


def record_failure(letters: QuerySet[DeadLetter], *, number: int | None, error_class: str, error_message: str) -> None:
    """Record in the caller's transaction that replay `number` has failed. `letters` is a query for the replayed letter.

    The number comes from the message, which any program may have written. So this function changes only a row that
    `begin_attempt` made, and an unknown number changes nothing.
    """
    begun = DeadLetterAttempt.objects.filter(letter__in=letters, number=number, number__gt=FIRST)
    begun.update(failed_at=now(), error_class=error_class, error_message=error_message)


def attempts_at(letters: Iterable[DeadLetter]) -> dict[int, list[Attempt]]:
    """Return the attempts at each of `letters`, oldest first, by the id of the letter.

    A letter without a replay has only its first failure. Attempts from the time of an earlier release are missing,
    because that release recorded none. A letter of which no attempt is known is left out.
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
    """Return an error in one line, such as "Poison: Not an order event"; an empty text if `error_class` is empty."""
    return f"{short_name(error_class)}: {' '.join(message.split())}" if error_class else ""


def short_name(error_class: str) -> str:
    """Return the name of a class without its module."""
    return error_class.rpartition(".")[2]
