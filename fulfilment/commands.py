"""The commands of the steps, as outbox messages."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol

from events.wire.messages import Message
from fulfilment.models import Fulfilment
from fulfilment.transitions import Step
from payments.messages import charge_payment, refund_payment
from shipping.messages import Item, book_shipment, cancel_shipment

SOURCE = "/fulfilment"


class Line(Protocol):
    product_id: int
    quantity: int


def charge(fulfilment: Fulfilment, *, amount: Decimal, payment_token: str) -> Message:
    """Return the command of the payment. It is sent only once, so that the payment token need not be stored."""
    return charge_payment(amount=amount, payment_token=payment_token, **_members(fulfilment, Step.PAYMENT))


def command_of(step: Step, fulfilment: Fulfilment, *, lines: Sequence[Line]) -> Message:
    """Return the command of a step other than the payment. `lines` are the lines of the order.

    Raises ValueError for the payment, whose command `charge` returns.
    """
    members = _members(fulfilment, step)
    match step:
        case Step.SHIPMENT:
            items = [Item(product_id=line.product_id, quantity=line.quantity) for line in lines]
            return book_shipment(items=items, **members)
        case Step.SHIPMENT_CANCELLATION:
            return cancel_shipment(booking_id=fulfilment.steps[Step.SHIPMENT].command_id, **members)
        case Step.REFUND:
            return refund_payment(charge_id=fulfilment.steps[Step.PAYMENT].command_id, **members)
    raise ValueError(f"{step} has a command of its own")


def _members(fulfilment: Fulfilment, step: Step) -> dict[str, Any]:
    return {
        "command_id": fulfilment.steps[step].command_id,
        "reference": fulfilment.pk,
        "source": SOURCE,
        "sequence": fulfilment.last_sequence,
    }
