"""The three kinds of trouble that a message can make, and what follows from each.

| kind | whose fault | what follows |
|---|---|---|
| `Poison` | the message's, for good | a dead letter at once |
| `Suspect` | perhaps the message's | `CONSUMER_SUSPECT_ATTEMPTS` attempts, then a dead letter |
| `Outage` | the world's | retried for ever; the message is blameless |
"""

from typing import Literal
from uuid import UUID

from django.db import DataError, Error, IntegrityError

Kind = Literal["poison", "suspect", "outage"]


class Poison(Exception):
    """A message that no retry can make fit."""


class EventIdConflict(Poison):
    """An event has the id of another one: one of the two is forged, or a producer gave one id to two events."""

    def __init__(self, event_id: UUID, *, before: str, now: str) -> None:
        """`before` and `now` describe the two events."""
        super().__init__(
            f"Event id {event_id} came first with {before}, and now with {now}. Find out who sent which: one of them "
            "is forged, or its producer gave one id to two events"
        )


class Outage(Exception):
    """Something that handling needs is away. A handler raises it for what is not the database."""


class Suspect(Exception):
    """A message that failed for a reason nobody foresaw, and that has attempts left."""


def kind_of(error: Exception) -> Kind:
    """What a failure of handling means. Of the database's errors, only those about the data are the message's fault."""
    if isinstance(error, Poison | DataError | IntegrityError):
        return "poison"
    if isinstance(error, Outage | Error):
        return "outage"
    return "suspect"
