"""Payments as a participant: charges and refunds at a provider over HTTP."""

from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from events.database_clock import database_now
from events.wire.messages import Message
from payments.messages import REPLY_TYPES, charge_payment, refund_payment
from testkit.participants.commands import ParticipantTests, Replies


class TestPayments(ParticipantTests):
    name = "payments"
    service = "payments"
    setting_prefix = "PAYMENT"
    replies = Replies(*REPLY_TYPES)
    made, undone = "charged", "refunded"

    def make(self, command_id: UUID, *, refused: bool = False) -> Message:
        return self.charge(command_id, "tok_declined" if refused else "tok_ok")

    def charge(self, command_id: UUID, token: str, *, amount: str = "50000.10") -> Message:
        return charge_payment(
            command_id=command_id,
            reference=7,
            amount=Decimal(amount),
            payment_token=token,
            source="/shop",
            sequence=1,
        )

    def undo(self, command_id: UUID, *, made_id: UUID) -> Message:
        return refund_payment(command_id=command_id, reference=7, charge_id=made_id, source="/shop", sequence=2)

    @pytest.mark.django_db
    @pytest.mark.parametrize("amount", ["0.00", "0.10", "1", "123456789012345678.91"])
    def test_the_exact_amount_is_charged(self, amount: str) -> None:
        charge_id = uuid4()
        self.do(self.charge(charge_id, "tok_ok", amount=amount))
        assert self.types() == [self.replies.made]
        entry = self.provider.book("payments")[str(charge_id)]
        assert Decimal(entry["amount"]) == Decimal(amount)
        assert (entry["token"], entry["reference"]) == ("tok_ok", 7)

    @pytest.mark.django_db
    def test_a_command_that_is_too_large_is_poison(self) -> None:
        amounts = ["1." + "0" * zeros for zeros in (2, 200_000)]
        (letter,) = self.deliver(*(self.charge(uuid4(), "tok_ok", amount=amount) for amount in amounts))
        assert "bytes, more than 131072" in letter.error_message
        self.work()
        assert self.types() == [self.replies.made]

    @pytest.mark.django_db
    def test_a_token_that_times_out_is_charged_once(self) -> None:
        charge_id = uuid4()
        self.do(self.charge(charge_id, "tok_timeout_then_charged"))
        assert self.types() == []
        self.work()
        assert self.types() == [self.replies.made]
        assert self.history(charge_id) == ["charged"]

    @pytest.mark.django_db
    def test_a_refused_refund_fails_and_can_be_repeated(self) -> None:
        charge_id, refund_id = uuid4(), uuid4()
        self.do(self.charge(charge_id, "tok_no_refund"))
        _, reply = self.do(self.undo(refund_id, made_id=charge_id))
        assert (reply.event_type, reply.reason) == (self.replies.undo_failed, "This card takes no refunds")
        self.do(self.undo(refund_id, made_id=charge_id))
        assert self.types()[1:] == [self.replies.undo_failed] * 2
        assert self.history(charge_id) == ["charged"]

    @pytest.mark.django_db
    def test_the_token_of_a_finished_command_is_forgotten(self) -> None:
        charge_id = uuid4()
        self.do(self.charge(charge_id, "tok_of_a_card"))
        value = bytes(self.row(charge_id).value)
        assert (b"tok_of_a_card" in value, b'"amount":50000.10' in value) == (False, True)
        self.do(self.charge(charge_id, "tok_of_a_card"))
        assert self.types() == [self.replies.made] * 2
        (letter,) = self.deliver(self.charge(charge_id, "tok_of_a_card", amount="1.00"))
        assert letter.error_class.endswith("Poison")

    @pytest.mark.django_db
    def test_a_failed_command_keeps_its_token_for_a_repeat(self) -> None:
        charge_id = uuid4()
        self.deliver(self.charge(charge_id, "tok_of_a_card"))
        (letter,) = self.deliver(self.charge(charge_id, "tok_of_another"))
        assert letter.error_class.endswith("Poison")
        self.rows.update(deadline_at=database_now())
        self.work()
        self.do(self.charge(charge_id, "tok_of_a_card"))
        assert self.types() == [self.replies.make_failed, self.replies.made]
        assert self.provider.book("payments")[str(charge_id)]["token"] == "tok_of_a_card"
