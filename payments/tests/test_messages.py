"""The JSON of the commands and replies of payments."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from events.troubles import Poison
from events.wire.commands import reply_to
from payments import messages
from payments.messages import PAYMENT_DECLINED, ChargePayment, RefundPayment

COMMAND_ID = UUID("5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55")
CHARGE = {
    "eventId": "0b0a3c1e-58ad-4b52-9d1c-9f6e2d7c8a11",
    "eventType": "CHARGE_PAYMENT",
    "timestamp": "2025-01-30T10:15:30.123Z",
    "commandId": str(COMMAND_ID),
    "reference": 7,
    "amount": 50000.10,
    "paymentToken": "tok_ok",
}


def value(**changes: Any) -> bytes:
    return json.dumps(CHARGE | changes).encode()


def test_a_charge_is_encoded_as_documented() -> None:
    message = messages.charge_payment(
        command_id=COMMAND_ID,
        reference=7,
        amount=Decimal("50000.10"),
        payment_token="tok_ok",
        source="/shop",
        sequence=1,
    )
    assert b'"amount":50000.10' in message.value
    body = json.loads(message.value)
    assert body.keys() == CHARGE.keys()
    assert body["timestamp"].endswith("Z")
    assert len(body["timestamp"]) == len(CHARGE["timestamp"])
    assert (body["eventType"], body["commandId"], body["reference"]) == ("CHARGE_PAYMENT", str(COMMAND_ID), 7)
    assert (message.topic, message.key, message.stream, message.sequence) == ("payment-commands", b"7", "process-7", 1)


def test_commands_are_decoded_as_they_were_encoded() -> None:
    charge = messages.decode(value(unknown=1))
    assert isinstance(charge, ChargePayment)
    assert (charge.amount, charge.event_type, charge.stream, charge.owner) == (
        Decimal("50000.1"),
        "CHARGE_PAYMENT",
        "process-7",
        None,
    )
    assert messages.decode(messages.encode(charge)) == charge
    refund = messages.decode(
        messages.refund_payment(command_id=uuid4(), reference=7, charge_id=COMMAND_ID, source="/shop", sequence=2).value
    )
    assert isinstance(refund, RefundPayment)
    assert refund.charge_id == COMMAND_ID


def test_replies_are_decoded_as_they_were_encoded() -> None:
    reply = reply_to(messages.decode(value()), PAYMENT_DECLINED, reason="no money")
    assert messages.decode_reply(messages.encode(reply)) == reply
    assert (reply.command_id, reply.reference) == (COMMAND_ID, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"eventType": "PAY_LATER"},
        {"eventType": None},
        {"eventId": "x"},
        {"timestamp": "2025-01-30T10:15:30"},
        {"commandId": 7},
        {"reference": -1},
        {"reference": 2**63},
        {"reference": "7"},
        {"amount": -1},
        {"amount": 0.001},
        {"amount": "NaN"},
        {"amount": "Infinity"},
        {"amount": 1e19},
        {"amount": True},
        {"amount": None},
        {"paymentToken": ""},
        {"paymentToken": "a b"},
        {"paymentToken": "tok\r\nX: y"},
        {"paymentToken": "x" * 256},
    ],
)
def test_an_invalid_command_is_poison(changes: dict[str, Any]) -> None:
    with pytest.raises(Poison):
        messages.decode(value(**changes))


@pytest.mark.parametrize(
    "raw", [None, b"", b"{", b"\xff", b"[]", b"null", value().replace(b"50000.1", b"1e999999999"), b"[" * 100_000]
)
def test_a_value_that_is_no_command_is_poison(raw: bytes | None) -> None:
    with pytest.raises(Poison):
        messages.decode(raw)
    with pytest.raises(Poison):
        messages.decode_reply(raw)


def test_a_reply_of_another_vocabulary_is_poison() -> None:
    reply = reply_to(messages.decode(value()), "SHIPMENT_BOOKED")
    with pytest.raises(Poison):
        messages.decode_reply(messages.encode(reply))
