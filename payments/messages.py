"""The vocabulary of payments: its commands and replies. Apps that send commands to payments import only this module."""

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Annotated, Final
from uuid import UUID, uuid4

import msgspec
from django.conf import settings

from events.subscriptions import Topic, register_topic
from events.wire import commands
from events.wire.commands import Command
from events.wire.messages import Message
from events.wire.timestamps import now

PAYMENT_CHARGED: Final = "PAYMENT_CHARGED"
PAYMENT_DECLINED: Final = "PAYMENT_DECLINED"
PAYMENT_FAILED: Final = "PAYMENT_FAILED"
"""Payments gave up. The charge may have been made, so refund it."""
PAYMENT_REFUNDED: Final = "PAYMENT_REFUNDED"
"""The charge was refunded, or was never made and never will be."""
REFUND_FAILED: Final = "REFUND_FAILED"
REPLY_TYPES = (PAYMENT_CHARGED, PAYMENT_DECLINED, PAYMENT_FAILED, PAYMENT_REFUNDED, REFUND_FAILED)

MAX_AMOUNT: Final = Decimal("999999999999999999.99")
MAX_TOKEN_CHARS: Final = 255


class ChargePayment(Command, frozen=True, kw_only=True, tag="CHARGE_PAYMENT"):
    """Charge an amount. The command's id is the charge's id."""

    amount: Decimal
    payment_token: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TOKEN_CHARS, pattern=r"^[!-~]+$")]

    def __post_init__(self) -> None:
        """Raise ValueError unless the amount is from 0 to `MAX_AMOUNT`, with at most 2 decimals.

        Decoding turns this error into Poison.
        """
        if not (self.amount.is_finite() and 0 <= self.amount <= MAX_AMOUNT):
            raise ValueError("amount must be a number from 0 to 999999999999999999.99")
        if self.amount != round(self.amount, 2):
            raise ValueError("amount must have at most 2 decimals")


class RefundPayment(Command, frozen=True, kw_only=True, tag="REFUND_PAYMENT"):
    """Refund a charge, or make sure that it is never made."""

    charge_id: UUID
    """The id of the charge's command."""

    @property
    def undone_id(self) -> UUID:
        return self.charge_id


CHARGE_PAYMENT: Final = commands.event_type_of(ChargePayment)
REFUND_PAYMENT: Final = commands.event_type_of(RefundPayment)

PAYMENT_COMMANDS = register_topic(
    Topic.of_process("PAYMENT_COMMANDS_TOPIC", CHARGE_PAYMENT, REFUND_PAYMENT, secret_members=("paymentToken",))
)
PAYMENT_REPLIES = register_topic(Topic.of_process("PAYMENT_REPLIES_TOPIC", *REPLY_TYPES))

encode = commands.encode
decode: Callable[[bytes | None], ChargePayment | RefundPayment] = commands.decoder_of(ChargePayment | RefundPayment)
"""Return the command in a record's value. It raises Poison for any other value."""
decode_reply = partial(commands.decode_reply, event_types=REPLY_TYPES)
"""Return the reply in a record's value. It raises Poison for any other value."""


def charge_payment(
    *, command_id: UUID, reference: int, amount: Decimal, payment_token: str, source: str, sequence: int
) -> Message:
    """Return the outbox message that commands a charge. `source` is the sending app, such as `/shop`.

    Raise ValueError if `amount` is invalid. `payment_token` is not checked.

    The messages of one `reference`, to all participants together, are sent in the order of `sequence`: 1, 2, 3 ...
    Their outbox stream is named by `reference` alone. The references of `fulfilment` are ids of orders, so another app
    of the same project must use references that no order has. Otherwise the outbox refuses the second message with the
    same reference and sequence.
    """
    command = ChargePayment(
        event_id=uuid4(),
        timestamp=now(),
        command_id=command_id,
        reference=reference,
        amount=amount,
        payment_token=payment_token,
    )
    return commands.message(command, topic=settings.PAYMENT_COMMANDS_TOPIC, source=source, sequence=sequence)


def refund_payment(*, command_id: UUID, reference: int, charge_id: UUID, source: str, sequence: int) -> Message:
    """Return the outbox message that commands the refund of the charge `charge_id`.

    The other arguments have the same meaning as in `charge_payment`.
    """
    command = RefundPayment(
        event_id=uuid4(), timestamp=now(), command_id=command_id, reference=reference, charge_id=charge_id
    )
    return commands.message(command, topic=settings.PAYMENT_COMMANDS_TOPIC, source=source, sequence=sequence)
