"""The columns of leased work. Each kind of work has a table of its own, whose model extends `LeasedWork`."""

from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from django.db import models
from django.db.models import Count, F, Min, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy

from events.database_clock import DatabaseClock


class Backlog(NamedTuple):
    """The pending work of one kind."""

    pending: int
    """Number of pending rows."""
    oldest_pending_seconds: float
    """Time since the oldest pending row was recorded; 0 if no row is pending."""
    overdue_seconds: float = 0.0
    """Longest time for which a pending row has been due without being claimed by a worker; 0 if no row is due."""


def _seconds(passed: timedelta | None) -> float:
    return max(0.0, passed.total_seconds()) if passed else 0.0


class LeasedWorkQuerySet(models.QuerySet["WorkT"]):
    def pending(self) -> Self:
        return self.filter(state=LeasedWork.State.PENDING)

    def failed(self) -> Self:
        return self.filter(state=LeasedWork.State.FAILED)

    def backlog(self, *, count_up_to: int | None = None) -> Backlog:
        """Return the number of pending rows, the age of the oldest one, and the time since the earliest due time.

        With `count_up_to`, read at most that many rows, in the order of their due times.
        """
        rows = self.pending().order_by("due_at")[:count_up_to]
        found = rows.aggregate(
            count=Count("pk"), age=DatabaseClock() - Min("created_at"), overdue=DatabaseClock() - Min("due_at")
        )
        return Backlog(found["count"], _seconds(found["age"]), _seconds(found["overdue"]))

    def try_again(self, *, within: timedelta) -> int:
        """Make failed rows pending again, due at once and with a deadline `within` from now. Return their number."""
        return self.failed().update(
            state=LeasedWork.State.PENDING,
            due_at=DatabaseClock(),
            deadline_at=DatabaseClock() + within,
            attempts=0,
            finished_at=None,
        )


class LeasedWork(models.Model):
    """A piece of work that one worker at a time does, until it has a final state.

    The primary key of a model that extends this class must be an integer, and its Meta must extend `LeasedWork.Meta`.
    The database's clock gives all times, except that the app chooses the deadline and may choose the first due time.
    """

    is_overdue: bool
    """Whether the deadline had passed when the row was claimed. `events.work.leases.claim` sets it."""
    was_due_at: datetime
    """Due time of the row before it was claimed. `events.work.leases.claim` sets it."""

    refusal: str = ""
    """Why this piece must not be done; empty if it may be. A worker sets it after a claim, from `Kind.refuse`."""

    class State(models.TextChoices):
        PENDING = "pending", gettext_lazy("Pending")
        DONE = "done", gettext_lazy("Done")
        FAILED = "failed", gettext_lazy("Failed")
        CANCELLED = "cancelled", gettext_lazy("Cancelled")

    state = models.CharField(max_length=9, choices=State, db_default=State.PENDING)
    due_at = models.DateTimeField(
        db_default=Now(),
        help_text=gettext_lazy("A worker may claim it from this time on. While it is leased, this is the lease's end."),
    )
    lease = models.UUIDField(
        null=True, help_text=gettext_lazy("The worker that has claimed it holds this token. Without one it is free.")
    )
    attempts = models.PositiveIntegerField(
        db_default=0, help_text=gettext_lazy("This is how often a worker has claimed it to do it.")
    )
    deadline_at = models.DateTimeField(
        null=True, help_text=gettext_lazy("No attempt begins after this time: it fails instead.")
    )
    last_error = models.TextField(db_default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    objects: ClassVar["LeasedWorkQuerySet[Any]"] = LeasedWorkQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        abstract = True
        indexes = [
            # It has only the pending rows, so a claim reads only the entries that it takes, however large the table is.
            models.Index(F("due_at"), name="%(class)s_due", condition=Q(state="pending")),
            # For admin's lists by state, newest first. It leaves pending rows out, so that recording one costs no more.
            models.Index(F("state"), F("finished_at").desc(), name="%(class)s_ended", condition=~Q(state="pending")),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="pending", finished_at=None) | (~Q(state="pending") & Q(finished_at__isnull=False)),
                name="%(class)s_has_finished",
            ),
        ]


WorkT = TypeVar("WorkT", bound=LeasedWork)
