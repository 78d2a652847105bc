"""The table of a fulfilment: what each message changes in each state.

A message that `TABLE` does not name for a state changes neither the fulfilment's state nor the order, and sends no
command. docs/fulfilment.md draws the table, and a test walks through every state and message.
"""

from enum import Enum
from typing import Final, NamedTuple

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy

from payments.messages import PAYMENT_CHARGED, PAYMENT_DECLINED, PAYMENT_FAILED, PAYMENT_REFUNDED, REFUND_FAILED
from shipping.messages import (
    SHIPMENT_BOOKED,
    SHIPMENT_CANCELLATION_FAILED,
    SHIPMENT_CANCELLED,
    SHIPMENT_FAILED,
    SHIPMENT_REFUSED,
)


class State(TextChoices):
    PAYING = "PAYING", gettext_lazy("Paying")
    SHIPPING = "SHIPPING", gettext_lazy("Booking the shipment")
    COMPLETED = "COMPLETED", gettext_lazy("Completed")
    CANCELLING_SHIPMENT = "CANCELLING_SHIPMENT", gettext_lazy("Cancelling the shipment")
    REFUNDING = "REFUNDING", gettext_lazy("Refunding")
    CANCELLED = "CANCELLED", gettext_lazy("Cancelled")
    STUCK_SHIPMENT = "STUCK_SHIPMENT", gettext_lazy("Stuck: cancellation")
    STUCK_REFUND = "STUCK_REFUND", gettext_lazy("Stuck: refund")


class Step(TextChoices):
    """A step of a fulfilment. It has one command, whose id stays the same however often the command is sent."""

    PAYMENT = "PAYMENT", gettext_lazy("Payment")
    SHIPMENT = "SHIPMENT", gettext_lazy("Shipment")
    SHIPMENT_CANCELLATION = "SHIPMENT_CANCELLATION", gettext_lazy("Cancellation of the shipment")
    REFUND = "REFUND", gettext_lazy("Refund")


class Result(TextChoices):
    """The state of a step."""

    WAITING = "WAITING", gettext_lazy("Waiting")
    DONE = "DONE", gettext_lazy("Done")
    REFUSED = "REFUSED", gettext_lazy("Refused")
    FAILED = "FAILED", gettext_lazy("Failed")


class OrderChange(Enum):
    PAY = "PAY"
    CANCEL = "CANCEL"


DEADLINE: Final = "DEADLINE"
"""No reply to a command came in time, or the pause before its next attempt has ended."""
GIVE_UP: Final = "GIVE_UP"
"""The last attempt at an undoing step (a refund, or the cancellation of a shipment) failed.

This message takes the place of the `DEADLINE` or the reply that reported the failure.
"""
CANCEL: Final = "CANCEL"
"""The customer, or an operator in the list of orders, cancels the order."""
UNDO: Final = "UNDO"
"""An operator wants everything undone."""
RETRY: Final = "RETRY"
"""An operator wants the stuck step tried again."""
RESOLVE: Final = "RESOLVE"
"""An operator has done the stuck step by hand."""


class Then(NamedTuple):
    """An entry of `TABLE`: a fulfilment's next state, its order's change and the command that follow from a message.

    All of it commits in one transaction.
    """

    state: State
    order: OrderChange | None = None
    command: Step | None = None
    """The step whose command is sent, or None. If the step was begun before, the command keeps its earlier id."""
    pauses: bool = False
    """Whether the fulfilment waits for a while. Its next deadline then sends the command again."""


_refund = Then(State.REFUNDING, command=Step.REFUND)
_cancel_shipment = Then(State.CANCELLING_SHIPMENT, command=Step.SHIPMENT_CANCELLATION)
_end = Then(State.CANCELLED, order=OrderChange.CANCEL)

TABLE: dict[tuple[State, str], Then] = {
    # The way forward.
    (State.PAYING, PAYMENT_CHARGED): Then(State.SHIPPING, order=OrderChange.PAY, command=Step.SHIPMENT),
    (State.SHIPPING, SHIPMENT_BOOKED): Then(State.COMPLETED),
    # The ways back. After PAYMENT_FAILED the charge may have been made, so it is refunded. A refusal is certain: there
    # is nothing to undo.
    (State.PAYING, PAYMENT_DECLINED): _end,
    (State.PAYING, PAYMENT_FAILED): _refund,
    (State.PAYING, DEADLINE): _refund,
    (State.PAYING, CANCEL): _refund,
    (State.PAYING, UNDO): _refund,
    (State.SHIPPING, SHIPMENT_REFUSED): _refund,
    (State.SHIPPING, SHIPMENT_FAILED): _cancel_shipment,
    (State.SHIPPING, DEADLINE): _cancel_shipment,
    (State.SHIPPING, CANCEL): _cancel_shipment,
    (State.SHIPPING, UNDO): _cancel_shipment,
    (State.COMPLETED, CANCEL): _cancel_shipment,
    (State.COMPLETED, UNDO): _cancel_shipment,
    # Undoing: first the shipment, then the charge.
    (State.CANCELLING_SHIPMENT, SHIPMENT_CANCELLED): _refund,
    (State.CANCELLING_SHIPMENT, DEADLINE): _cancel_shipment,
    (State.CANCELLING_SHIPMENT, GIVE_UP): Then(State.STUCK_SHIPMENT),
    (State.CANCELLING_SHIPMENT, SHIPMENT_CANCELLATION_FAILED): Then(State.CANCELLING_SHIPMENT, pauses=True),
    (State.REFUNDING, PAYMENT_REFUNDED): _end,
    (State.REFUNDING, DEADLINE): _refund,
    (State.REFUNDING, GIVE_UP): Then(State.STUCK_REFUND),
    (State.REFUNDING, REFUND_FAILED): Then(State.REFUNDING, pauses=True),
    # Stuck: a late reply or an operator's message lets the fulfilment go on.
    (State.STUCK_SHIPMENT, SHIPMENT_CANCELLED): _refund,
    (State.STUCK_SHIPMENT, RETRY): _cancel_shipment,
    (State.STUCK_SHIPMENT, RESOLVE): _refund,
    (State.STUCK_REFUND, PAYMENT_REFUNDED): _end,
    (State.STUCK_REFUND, RETRY): _refund,
    (State.STUCK_REFUND, RESOLVE): _end,
    # Replies that contradict an earlier reply to the same command, or come after RESOLVE. If one of them says that
    # something was done, or may have been done, it is undone.
    (State.SHIPPING, PAYMENT_DECLINED): _cancel_shipment,
    (State.COMPLETED, PAYMENT_DECLINED): _cancel_shipment,
    (State.COMPLETED, SHIPMENT_REFUSED): _cancel_shipment,
    (State.REFUNDING, SHIPMENT_BOOKED): _cancel_shipment,
    (State.REFUNDING, SHIPMENT_FAILED): _cancel_shipment,
    (State.STUCK_REFUND, SHIPMENT_BOOKED): _cancel_shipment,
    (State.STUCK_REFUND, SHIPMENT_FAILED): _cancel_shipment,
    (State.CANCELLED, SHIPMENT_BOOKED): _cancel_shipment,
    (State.CANCELLED, SHIPMENT_FAILED): _cancel_shipment,
    (State.CANCELLED, PAYMENT_CHARGED): _refund,
    (State.CANCELLED, PAYMENT_FAILED): _refund,
}

REPLIES: dict[str, tuple[Step, Result]] = {
    PAYMENT_CHARGED: (Step.PAYMENT, Result.DONE),
    PAYMENT_DECLINED: (Step.PAYMENT, Result.REFUSED),
    PAYMENT_FAILED: (Step.PAYMENT, Result.FAILED),
    PAYMENT_REFUNDED: (Step.REFUND, Result.DONE),
    REFUND_FAILED: (Step.REFUND, Result.FAILED),
    SHIPMENT_BOOKED: (Step.SHIPMENT, Result.DONE),
    SHIPMENT_REFUSED: (Step.SHIPMENT, Result.REFUSED),
    SHIPMENT_FAILED: (Step.SHIPMENT, Result.FAILED),
    SHIPMENT_CANCELLED: (Step.SHIPMENT_CANCELLATION, Result.DONE),
    SHIPMENT_CANCELLATION_FAILED: (Step.SHIPMENT_CANCELLATION, Result.FAILED),
}
"""The step that each reply answers, and the result of that step."""
RESULTS = {DEADLINE: Result.FAILED, RESOLVE: Result.DONE}
"""The result that these two messages, which are no replies, give to the awaited step (`AWAITED`)."""

MESSAGES = (*REPLIES, DEADLINE, GIVE_UP, CANCEL, UNDO, RETRY, RESOLVE)

UNDONE_BY: dict[Step, Step] = {Step.PAYMENT: Step.REFUND, Step.SHIPMENT: Step.SHIPMENT_CANCELLATION}
"""The step that undoes a payment or a shipment, by the undone step. The undoing steps have no entries.

Once the provider has done the undoing step, no charge or booking with the idempotency key of the undone step is in
effect, and the provider makes none later. So a late reply to the undone step changes at most that step's result.

`RESOLVE` is an exception. It says that an operator has done the undoing step by hand, and the provider does not know
that. If no success of the undone step was known before `RESOLVE`, a later reply of success begins the undoing step
again. So does a reply of failure, because the charge or the booking may have been made all the same.
"""

AWAITED: dict[State, Step] = {
    State.PAYING: Step.PAYMENT,
    State.SHIPPING: Step.SHIPMENT,
    State.CANCELLING_SHIPMENT: Step.SHIPMENT_CANCELLATION,
    State.STUCK_SHIPMENT: Step.SHIPMENT_CANCELLATION,
    State.REFUNDING: Step.REFUND,
    State.STUCK_REFUND: Step.REFUND,
}
"""The step that decides how a fulfilment in this state goes on. Deadlines and `RESOLVE` are about this step.

The states in `ENDED` have no entry.
"""

UNDOING = (State.CANCELLING_SHIPMENT, State.REFUNDING)
UNDOING_FAILURES = (DEADLINE, SHIPMENT_CANCELLATION_FAILED, REFUND_FAILED)
"""Messages after which an undoing step is tried again. After the step's last attempt, `GIVE_UP` replaces them."""
STUCK = (State.STUCK_SHIPMENT, State.STUCK_REFUND)
ENDED = (State.COMPLETED, State.CANCELLED)
AT_REST = (*ENDED, *STUCK)
"""The states in which a fulfilment waits for no reply and no deadline: it has ended, or it waits for an operator."""
UNDER_WAY = tuple(state for state in State if state not in AT_REST)

SHOWN = {state: state.value for state in State} | dict.fromkeys(UNDOING, "UNDOING") | dict.fromkeys(STUCK, "STUCK")
"""The name of each state in the API and in the metrics."""
