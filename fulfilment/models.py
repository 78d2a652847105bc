"""Fulfilments with their steps, and the deadlines of the commands. Only `advancing` changes fulfilments and steps."""

from datetime import datetime, timedelta
from typing import ClassVar, Self
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.functional import cached_property
from django.utils.translation import gettext, gettext_lazy

from events.wire.timestamps import now
from events.work.models import LeasedWork
from fulfilment.transitions import (
    AWAITED,
    CANCEL,
    DEADLINE,
    ENDED,
    GIVE_UP,
    REPLIES,
    RESOLVE,
    RESULTS,
    SHOWN,
    STUCK,
    TABLE,
    UNDO,
    UNDOING,
    UNDOING_FAILURES,
    UNDONE_BY,
    Result,
    State,
    Step,
    Then,
)

REASONS = {
    DEADLINE: "No reply came in time",
    CANCEL: "The order was cancelled",
    UNDO: "An operator had it undone",
    RESOLVE: "An operator marked it as resolved",
}
"""Reasons that the API and admin show, by the messages that bring no reason of their own.

Replies have no entries: the reason of a fulfilment begins with the reply's type instead.
"""


class FulfilmentQuerySet(models.QuerySet["Fulfilment"]):
    def unfinished(self) -> Self:
        """Return the fulfilments that are under way or stuck. They have an index of their own."""
        return self.exclude(state__in=ENDED)

    def stuck(self) -> Self:
        return self.filter(state__in=STUCK)


class Fulfilment(models.Model):
    """The way of one order through payment and shipping.

    Each change first locks the order's row. So a reply, a deadline, the customer and an operator take turns.
    """

    order = models.OneToOneField("orders.Order", primary_key=True, on_delete=models.PROTECT, related_name="fulfilment")
    state = models.CharField(max_length=19, choices=State, default=State.PAYING)
    reason = models.TextField(
        default="", blank=True, help_text=gettext_lazy("This is why it is undone or stuck. It is empty otherwise.")
    )
    created_at = models.DateTimeField(default=now)
    changed_at = models.DateTimeField(default=now, help_text=gettext_lazy("It has had its state since this time."))
    deadline_at = models.DateTimeField(
        null=True, help_text=gettext_lazy("The reply to its last command must come before this time.")
    )
    last_sequence = models.PositiveIntegerField(
        default=0, help_text=gettext_lazy("The last command sent for it has this number.")
    )

    objects: ClassVar[FulfilmentQuerySet] = FulfilmentQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=State.values), name="fulfilment_state_known"),
        ]
        indexes = [
            models.Index(fields=["state", "-order"], name="fulfilment_of_state"),
            # For the gauges: it has the few fulfilments that are under way or stuck.
            models.Index(fields=["created_at"], name="fulfilment_not_ended", condition=~Q(state__in=ENDED)),
        ]
        permissions = [
            ("retry_fulfilment", "Can retry steps of fulfilments"),
            ("undo_fulfilment", "Can undo fulfilments"),
            ("resolve_fulfilment", "Can mark steps of fulfilments as resolved"),
        ]

    def __str__(self) -> str:
        return gettext("Fulfilment of order %(id)s") % {"id": self.pk}

    @property
    def shown_state(self) -> str:
        """Return the state as the API names it."""
        return SHOWN[State(self.state)]

    @cached_property
    def steps(self) -> dict[str, "FulfilmentStep"]:
        """Return the steps that were begun, by name and in the sequence of their beginning."""
        return {} if self._state.adding else {row.step: row for row in self.step_rows.all()}

    @property
    def begun_steps(self) -> list["FulfilmentStep"]:
        return list(self.steps.values())

    @property
    def awaited_step(self) -> "FulfilmentStep | None":
        """Return the step that decides how the fulfilment goes on; None if it is completed or cancelled."""
        awaited = AWAITED.get(State(self.state))
        return self.steps[awaited] if awaited else None

    def begin(self, *, at: datetime) -> None:
        """Begin a new fulfilment with the payment, in memory. The caller saves it and records the command.

        `at` is the current time of the database's clock, by which workers find the deadlines that have passed.
        """
        self.created_at = self.changed_at = at
        self._send(Step.PAYMENT, at=at, is_first=True)

    def take(self, message: str, *, at: datetime, reason: str = "") -> Then | None:
        """Change this object and its steps in memory by the entry of `TABLE` for `message`, and return the entry.

        `message` is the event type of a reply, or a constant such as `DEADLINE` or `CANCEL`. `reason` is a text for
        people. `at` is the current time of the database's clock.

        Return None if `TABLE` has no entry for `message` in the current state, or if `message` is a late reply (see
        `_is_late`). In both cases, a reply changes at most the result of its step, so that people see the result.
        """
        then = None if self._is_late(message) else TABLE.get((State(self.state), self._or_last(message)))
        if then and then.command == Step.REFUND and self._is_refunded_by_hand:
            then = TABLE[State.STUCK_REFUND, RESOLVE]
        if then or message in REPLIES:
            self._conclude_step(message, at=at, reason=reason)
        if then is None:
            return None
        if then.state not in (State.SHIPPING, State.COMPLETED):
            self.reason = self.reason or REASONS.get(message, message) + (f": {reason}" if reason else "")
        if then.state != self.state:
            self.state, self.changed_at = then.state, at
        self.deadline_at = None
        if then.command:
            self._send(then.command, at=at, is_first=message != DEADLINE)
        elif then.pauses and (step := self.awaited_step):
            self.deadline_at = at + step.pause
        return then

    @property
    def _is_refunded_by_hand(self) -> bool:
        """Return whether an operator has refunded a known charge by hand. A command could refund it a second time."""
        refund = self.steps.get(Step.REFUND)
        return refund is not None and refund.by_hand and self.steps[Step.PAYMENT].state == Result.DONE

    def _is_late(self, message: str) -> bool:
        """Return whether `message` is a reply that no longer counts.

        Once a step has been undone, a reply of its success or failure no longer counts. It still counts if an operator
        has marked the undoing step as resolved and the step is not known to have succeeded (see `UNDONE_BY`).

        Before that, a failure counts only if the step waits for a reply or was refused. The failure of a refused step
        says that the charge or the booking may have been made.
        """
        answered, result = REPLIES.get(message, (None, None))
        step = self.steps.get(answered or "")
        if step is None or result not in (Result.DONE, Result.FAILED):
            return False
        undoing = self.steps.get(UNDONE_BY.get(Step(step.step), ""))
        if undoing is not None and undoing.state == Result.DONE:
            return step.state == Result.DONE or not undoing.by_hand
        return result == Result.FAILED and step.state not in (Result.WAITING, Result.REFUSED)

    def _or_last(self, message: str) -> str:
        """Return `GIVE_UP` in place of a message that reports the failure of the undoing step's last attempt.

        A passed deadline is such a failure. Return any other `message` as it is.
        """
        step = self.awaited_step
        if step is None or self.state not in UNDOING or message not in UNDOING_FAILURES:
            return message
        answered, _ = REPLIES.get(message, (step.step, None))
        is_last = answered == step.step and step.attempts >= settings.FULFILMENT_UNDO_ATTEMPTS
        return GIVE_UP if is_last else message

    def _conclude_step(self, message: str, *, at: datetime, reason: str) -> None:
        named, result = REPLIES.get(message, (AWAITED.get(State(self.state)), RESULTS.get(message)))
        step = self.steps.get(named or "")
        # A success stays on record, because it has to be undone. A second failure says nothing new.
        kept = {Result.DONE: (Result.REFUSED, Result.FAILED), Result.FAILED: (Result.FAILED,)}
        if step is None or result is None or result in kept.get(Result(step.state), ()):
            return
        step.state, step.at, step.by_hand = result, at, message == RESOLVE
        step.reason = reason or REASONS.get(message, "")

    def _send(self, name: Step, *, at: datetime, is_first: bool) -> None:
        """Begin an attempt at the step `name`, in memory. With `is_first`, its number of attempts restarts at 1."""
        self.last_sequence += 1
        step = self.steps.setdefault(name, FulfilmentStep(fulfilment=self, step=name, number=self.last_sequence))
        step.attempts = 1 if is_first else step.attempts + 1
        step.state, step.at, step.reason, step.by_hand = Result.WAITING, at, "", False
        self.deadline_at = at + step.timeout


class FulfilmentStep(models.Model):
    """A step of a fulfilment, with the id of its command, which stays the same however often the command is sent."""

    command_id = models.UUIDField(primary_key=True, default=uuid4)
    fulfilment = models.ForeignKey(Fulfilment, on_delete=models.CASCADE, related_name="step_rows")
    step = models.CharField(max_length=21, choices=Step)
    state = models.CharField(max_length=7, choices=Result, default=Result.WAITING)
    by_hand = models.BooleanField(
        default=False, help_text=gettext_lazy("An operator has marked it as resolved. No participant has done it.")
    )
    reason = models.TextField(default="", blank=True)
    attempts = models.PositiveIntegerField(
        default=0, help_text=gettext_lazy("This is how often its command was sent since an operator last retried it.")
    )
    number = models.PositiveIntegerField(help_text=gettext_lazy("Its command was first sent under this number."))
    at = models.DateTimeField(default=now, help_text=gettext_lazy("It has had its state since this time."))

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["fulfilment", "step"], name="fulfilment_step_once"),
            models.CheckConstraint(condition=Q(step__in=Step.values), name="fulfilment_step_known"),
            models.CheckConstraint(condition=Q(state__in=Result.values), name="fulfilment_step_state_known"),
        ]

    def __str__(self) -> str:
        return f"{self.get_step_display()} {self.command_id}"

    @property
    def timeout(self) -> timedelta:
        """Return the longest time from this attempt's command to its reply.

        For an undoing step, it doubles with each attempt.
        """
        match self.step:
            case Step.PAYMENT:
                return settings.FULFILMENT_PAYMENT_TIMEOUT
            case Step.SHIPMENT:
                return settings.FULFILMENT_SHIPMENT_TIMEOUT
        return settings.FULFILMENT_UNDO_TIMEOUT * 2 ** (self.attempts - 1)

    @property
    def pause(self) -> timedelta:
        """Return the pause after this attempt, if it fails. It doubles with each attempt."""
        return settings.FULFILMENT_UNDO_PAUSE * 2 ** (self.attempts - 1)


class FulfilmentDeadline(LeasedWork):
    """The deadline for the reply to one command, or the end of a pause, as leased work. It is due when it has passed.

    The consumer of a reply does not delete the row. It has locked the order, and workers lock deadlines before orders,
    so the two could deadlock. Later a worker finds that the fulfilment has another deadline or none, and only deletes
    the row.
    """

    fulfilment = models.ForeignKey(Fulfilment, on_delete=models.CASCADE, related_name="deadlines")
    at = models.DateTimeField(help_text=gettext_lazy("It counts only while the fulfilment has this deadline."))

    class Meta(LeasedWork.Meta):
        pass

    def __str__(self) -> str:
        return gettext("Deadline of order %(id)s") % {"id": self.fulfilment_id}
