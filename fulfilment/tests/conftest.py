"""A checked-out order in a test, with the replies of payments and shipping sent by hand."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from events.models import DeadLetter, OutboxEvent
from events.subscriptions import subscription
from events.testing import deliver
from events.wire import commands
from events.wire.commands import Reply, stream_of
from events.wire.timestamps import now
from events.work.worker import Worker
from fulfilment.models import Fulfilment, FulfilmentDeadline, FulfilmentStep
from fulfilment.transitions import REPLIES, Step
from fulfilment.work import DEADLINES
from orders.models import Order
from orders.services import Line, place_order

FULFILMENT = "fulfilment"


@dataclass
class Checkout:
    """A customer's order that was checked out. A test delivers replies to its fulfilment, and reads the outcome."""

    order_id: int
    api: APIClient

    def reply(self, event_type: str, **changes: Any) -> list[DeadLetter]:
        """Deliver a reply to the command that `event_type` answers, and return the new dead letters.

        `changes` replace members of the reply.
        """
        return deliver(subscription(FULFILMENT), [self.reply_value(event_type, **changes)])

    def reply_value(self, event_type: str, **changes: Any) -> bytes:
        members = {
            "event_id": uuid4(),
            "event_type": event_type,
            "timestamp": now(),
            "command_id": changes.pop("command_id", None) or self.command_id(REPLIES[event_type][0]),
            "reference": self.order_id,
        }
        return commands.encode(Reply(**(members | changes)))

    def replies(self, *event_types: str) -> None:
        for event_type in event_types:
            assert self.reply(event_type) == []

    def command_id(self, step: Step) -> UUID:
        return FulfilmentStep.objects.get(fulfilment=self.order_id, step=step).command_id

    def pass_deadline(self) -> None:
        """Let the worker find that the current deadline has passed."""
        fulfilment = self.fulfilment
        assert fulfilment.deadline_at is not None
        FulfilmentDeadline.objects.filter(fulfilment=fulfilment, at=fulfilment.deadline_at).update(
            due_at=now() - timedelta(seconds=1)
        )
        work_off_deadlines()

    @property
    def fulfilment(self) -> Fulfilment:
        return Fulfilment.objects.get(pk=self.order_id)

    @property
    def order(self) -> Order:
        return Order.objects.get(pk=self.order_id)

    @property
    def shown(self) -> Any:
        """Return the body of `GET /api/orders/{id}/fulfilment`."""
        return self.api.get(f"/api/orders/{self.order_id}/fulfilment").json()

    @property
    def steps(self) -> dict[str, str]:
        return {step["step"]: step["state"] for step in self.shown["steps"]}

    @property
    def sent(self) -> list[Any]:
        """Return the commands as decoded JSON, in the sequence of the outbox."""
        rows = OutboxEvent.objects.filter(stream=stream_of(self.order_id)).order_by("sequence")
        return [msgspec.json.decode(bytes(row.value or b"")) for row in rows]

    @property
    def sent_types(self) -> list[str]:
        return [command["eventType"] for command in self.sent]

    @property
    def order_events(self) -> list[str]:
        rows = OutboxEvent.objects.filter(stream=self.order.stream).order_by("sequence")
        return [row.event_type for row in rows]


def work_off_deadlines() -> int:
    """Let a worker handle all deadlines that are due, and return their number."""
    worker = Worker(DEADLINES, stopping=lambda: False, wait=float)
    _, results = worker.work_off_batch()
    return len(results)


def place(user: User, *, product_id: int = 1) -> Order:
    return place_order(user_id=user.pk, lines=[Line(product_id, 2, Decimal("100.00"))]).order


def check_out(api: APIClient, order_id: int, token: Any = "tok_ok") -> Any:
    return api.post(f"/api/orders/{order_id}/checkout", {"paymentToken": token}, format="json")


@pytest.fixture(autouse=True)
def _one_attempt(settings: Any) -> None:
    """Let the first failure of an undoing step leave the fulfilment stuck, unless the test sets more attempts."""
    settings.FULFILMENT_UNDO_ATTEMPTS = 1


@pytest.fixture
def checkout(api: APIClient, user: User) -> Checkout:
    """Return a checkout whose payment is under way."""
    order = place(user)
    assert check_out(api, order.pk).status_code == 202
    return Checkout(order.pk, api)


WAYS = {
    "PAYING": [],
    "SHIPPING": ["PAYMENT_CHARGED"],
    "COMPLETED": ["PAYMENT_CHARGED", "SHIPMENT_BOOKED"],
    "CANCELLING_SHIPMENT": ["PAYMENT_CHARGED", "SHIPMENT_FAILED"],
    "REFUNDING": ["PAYMENT_CHARGED", "SHIPMENT_REFUSED"],
    "CANCELLED": ["PAYMENT_DECLINED"],
    "STUCK_SHIPMENT": ["PAYMENT_CHARGED", "SHIPMENT_FAILED", "SHIPMENT_CANCELLATION_FAILED"],
    "STUCK_REFUND": ["PAYMENT_CHARGED", "SHIPMENT_REFUSED", "REFUND_FAILED"],
}
"""Replies that lead from the checkout into each state."""
