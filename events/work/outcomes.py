"""The possible outcomes of an attempt at a piece of work."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """The work is done. `result` is for `Kind.record`, which does what follows from the outcome."""

    result: Any = None


@dataclass(frozen=True)
class Failed:
    """The work failed, and no worker tries it again unless `LeasedWorkQuerySet.try_again` makes it pending.

    `reason` is for operators: it may have addresses and answers of other services. `for_people` is the reason for all
    other people. It may be empty.
    """

    reason: str
    for_people: str = ""


@dataclass(frozen=True)
class Cancelled:
    """The work is not wanted any more."""

    reason: str


@dataclass(frozen=True)
class TryAgain:
    """The attempt failed, and a later one may succeed."""

    reason: str


Outcome = Done | Failed | Cancelled | TryAgain


class ServiceUnavailable(Exception):
    """A service that all work of one kind needs is not available. The worker pauses before it tries more work."""
