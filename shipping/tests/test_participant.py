"""Shipping as a participant: bookings and cancellations at a carrier over HTTP."""

from uuid import UUID, uuid4

import pytest

from events.wire.messages import Message
from shipping.messages import REPLY_TYPES, Item, book_shipment, cancel_shipment
from testkit.participants.commands import ParticipantTests, Replies


class TestShipping(ParticipantTests):
    name = "shipping"
    service = "shipments"
    setting_prefix = "SHIPPING"
    replies = Replies(*REPLY_TYPES)
    made, undone = "booked", "cancelled"

    def make(self, command_id: UUID, *, refused: bool = False) -> Message:
        items = [Item(product_id=1, quantity=2), Item(product_id=9_000_000 if refused else 8_999_999, quantity=1)]
        return book_shipment(command_id=command_id, reference=7, items=items, source="/shop", sequence=1)

    def undo(self, command_id: UUID, *, made_id: UUID) -> Message:
        return cancel_shipment(command_id=command_id, reference=7, booking_id=made_id, source="/shop", sequence=2)

    @pytest.mark.django_db
    def test_the_carrier_gets_the_items(self) -> None:
        booking_id = uuid4()
        self.do(self.make(booking_id))
        entry = self.provider.book("shipments")[str(booking_id)]
        assert entry["items"] == [{"productId": 1, "quantity": 2}, {"productId": 8_999_999, "quantity": 1}]

    @pytest.mark.django_db
    def test_a_refusal_names_the_product(self) -> None:
        (reply,) = self.do(self.make(uuid4(), refused=True))
        assert reply.reason == "Product 9000000 cannot be shipped"
