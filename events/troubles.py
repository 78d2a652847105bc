"""The three kinds of failure in handling a message, and what the consumer does after each.

| kind | cause | the consumer |
|---|---|---|
| `Poison` | the message can never be handled | makes a dead letter at once |
| `Suspect` | unknown, perhaps the message | makes `CONSUMER_SUSPECT_ATTEMPTS` attempts, then a dead letter |
| `Outage` | a dependency fails | retries without a limit, and never makes a dead letter |
"""

from typing import Literal
from uuid import UUID

from django.db import DataError, Error, IntegrityError, InternalError, NotSupportedError, ProgrammingError

TAKES_NO_TRANSACTION = {"25006", "25P03", "25P04"}
"""SQLSTATEs of a read-only server, and of a server that ended a transaction because of a time limit.

The driver raises InternalError for them. It also raises InternalError for errors about one statement: a trigger's
RAISE, or a transaction that an earlier error has aborted.
"""

Kind = Literal["poison", "suspect", "outage"]


class Poison(Exception):
    """A message that no retry can handle."""


class EventIdConflict(Poison):
    """Two different events have the same id: one is forged, or a producer used one id for both."""

    def __init__(self, event_id: UUID, *, before: str, now: str) -> None:
        """Create the error.

        `before` describes the event that first had the id, and `now` describes the other event with the same id.
        """
        super().__init__(
            f"Event id {event_id} came first with {before}, and now with {now}. Find the producers of both: one event "
            "is forged, or a producer used one id for two events"
        )


class Outage(Exception):
    """A dependency of the handler is not available. Handlers raise it for dependencies other than the database."""


class Suspect(Exception):
    """A message failed for an unknown reason, and has attempts left. The consumer raises it, and handlers need not."""


def kind_of(error: Exception) -> Kind:
    """Return the kind of a failure in handling. A database error is poison if it is about the data, else an outage.

    An error that is neither a database error nor a Poison or Outage is suspect.
    """
    if isinstance(error, Poison | DataError | IntegrityError):
        return "poison"
    if isinstance(error, Outage | Error):
        return "outage"
    return "suspect"


def is_database_away(error: Exception) -> bool:
    """Return whether the database is away or takes no writes, so that any other write would fail as well.

    A plain DatabaseError counts as away, because a crash of the server may raise it.

    `kind_of` returns "outage" for each such error, and also for an error in the statement itself, such as a missing
    table. The consumer then waits, because otherwise each message would become a dead letter.
    """
    if getattr(error.__cause__, "pgcode", None) in TAKES_NO_TRANSACTION:
        return True
    about_the_statement = (DataError, IntegrityError, InternalError, NotSupportedError, ProgrammingError)
    return isinstance(error, Error) and not isinstance(error, about_the_statement)
