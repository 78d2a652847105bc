"""Orders on their whole way: the fulfilment, payments, shipping, and the provider over HTTP. `Wire` replaces Kafka."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from events.database_clock import database_now
from events.models import OutboxEvent
from events.subscriptions import subscription
from events.testing import deliver
from events.work.kinds import kind_named
from events.work.models import LeasedWork
from events.work.threads import worker_of
from fulfilment.advancing import NotPossible, ask
from fulfilment.models import Fulfilment, FulfilmentDeadline
from fulfilment.tests.conftest import Checkout, check_out, place, work_off_deadlines
from fulfilment.transitions import RESOLVE, RETRY, STUCK, State, Step
from testkit.participants.provider import ProviderUnderTest, provider_in_thread

pytestmark = pytest.mark.django_db

GROUPS = {"payment-commands": "payments", "shipping-commands": "shipping", "fulfilment-replies": "fulfilment"}
UNSHIPPABLE = 9_000_000
ORDERS = 25
MAX_TURNS = 60


class Wire:
    """Delivers the messages of the outbox to their groups, and lets workers do the commands that result.

    If `chance` is set, it delivers some messages twice, and all of them in a random order.
    """

    def __init__(self, provider: ProviderUnderTest) -> None:
        self.provider = provider
        self.chance: random.Random | None = None
        """Source of the random faults; None for no faults."""

    def turn(self) -> bool:
        """Deliver each new message, try each pending command, and return whether there was anything to do."""
        new = OutboxEvent.objects.filter(topic__in=GROUPS, published_at=None)
        rows = list(new.order_by("pk"))
        new.filter(pk__in=[row.pk for row in rows]).update(
            published_at=database_now(), published_path="fast", published_partition=0, published_offset=0
        )
        if self.chance:
            rows += self.chance.choices(rows, k=len(rows) // 3) if rows else []
            self.chance.shuffle(rows)
        for topic, group in GROUPS.items():
            values = [bytes(row.value or b"") for row in rows if row.topic == topic]
            assert deliver(subscription(group), values) == []
        pending = sum(self._work(kind_named(name)) for name in ("payments", "shipping"))
        return bool(rows or pending)

    def rest(self) -> None:
        """Call `turn` until it finds nothing to do. Raises AssertionError after `MAX_TURNS` turns."""
        turns = 0
        while self.turn():
            turns += 1
            assert turns < MAX_TURNS

    def _work(self, kind: Any) -> int:
        pending = kind.model.objects.filter(state=LeasedWork.State.PENDING)
        if number := pending.update(due_at=database_now()):
            worker_of(kind, stopping=lambda: False, wait=float).sweep(due_until=database_now())
        return number


@pytest.fixture
def wire(settings: Any, tmp_path: Path) -> Iterator[Wire]:
    with provider_in_thread(tmp_path / "book.sqlite3", silence_s=1.0) as provider:
        settings.PAYMENT_PROVIDER_URL = settings.SHIPPING_PROVIDER_URL = provider.url
        settings.PAYMENT_PROVIDER_TIMEOUT = settings.SHIPPING_PROVIDER_TIMEOUT = 0.5
        yield Wire(provider)


def begin(api: APIClient, user: User, *, token: str = "tok_ok", product_id: int = 1) -> Checkout:
    order = place(user, product_id=product_id)
    assert check_out(api, order.pk, token).status_code == 202
    return Checkout(order.pk, api)


def entry(wire: Wire, service: str, checkout: Checkout, step: Step) -> list[str]:
    """Return the history of a step's command in the provider's book: its states, oldest first."""
    found = wire.provider.book(service).get(str(checkout.command_id(step)))
    return found["history"] if found else []


@pytest.mark.parametrize(
    ("token", "product_id", "state", "paid", "shipped"),
    [
        ("tok_ok", 1, "COMPLETED", ["charged"], ["booked"]),
        ("tok_timeout_then_charged", 1, "COMPLETED", ["charged"], ["booked"]),
        ("tok_declined", 1, "CANCELLED", ["declined"], None),
        ("tok_ok", UNSHIPPABLE, "CANCELLED", ["charged", "refunded"], ["refused"]),
        ("tok_no_refund", UNSHIPPABLE, "STUCK", ["charged"], ["refused"]),
    ],
)
def test_each_token_and_product_leads_to_its_state(
    wire: Wire,
    api: APIClient,
    user: User,
    token: str,
    product_id: int,
    state: str,
    paid: list[str],
    shipped: list[str] | None,
) -> None:
    checkout = begin(api, user, token=token, product_id=product_id)
    wire.rest()
    assert checkout.shown["state"] == state
    assert entry(wire, "payments", checkout, Step.PAYMENT) == paid
    if shipped is not None:
        assert entry(wire, "shipments", checkout, Step.SHIPMENT) == shipped


def test_a_completed_order_is_undone_at_both_providers(wire: Wire, api: APIClient, user: User) -> None:
    checkout = begin(api, user)
    wire.rest()
    assert api.post(f"/api/orders/{checkout.order_id}/cancel").status_code == 202
    wire.rest()
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert entry(wire, "payments", checkout, Step.PAYMENT) == ["charged", "refunded"]
    assert entry(wire, "shipments", checkout, Step.SHIPMENT) == ["booked", "cancelled"]


def test_a_charge_that_comes_after_its_refund_is_refused(wire: Wire, api: APIClient, user: User) -> None:
    """The deadline passes before the worker calls the provider for the first time."""
    checkout = begin(api, user)
    checkout.pass_deadline()
    wire.rest()
    assert checkout.shown["state"] == "CANCELLED"
    assert "charged" not in entry(wire, "payments", checkout, Step.PAYMENT)[1:]
    assert entry(wire, "payments", checkout, Step.PAYMENT)[-1] in ("refunded", "voided")


def test_a_refund_that_never_works_is_retried_and_resolved(wire: Wire, api: APIClient, user: User) -> None:
    checkout = begin(api, user, token="tok_no_refund", product_id=UNSHIPPABLE)
    wire.rest()
    assert checkout.shown["state"] == "STUCK"
    ask(RETRY, order_id=checkout.order_id)
    assert checkout.shown["state"] == "UNDOING"
    wire.rest()
    assert checkout.shown["state"] == "STUCK"
    ask(RESOLVE, order_id=checkout.order_id)
    wire.rest()
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    with pytest.raises(NotPossible):
        ask(RETRY, order_id=checkout.order_id)


@pytest.mark.parametrize("seed", range(3))
def test_the_books_agree_with_the_orders_after_faults(
    wire: Wire, api: APIClient, user: User, settings: Any, seed: int
) -> None:
    """At random, messages are doubled and reordered, the provider fails, deadlines pass, and customers cancel.

    Afterwards the provider has a charge and a booking in effect for each paid order, and none for a cancelled one.
    """
    settings.FULFILMENT_UNDO_ATTEMPTS = 100
    chance = wire.chance = random.Random(seed)
    tokens = ["tok_ok"] * 6 + ["tok_declined", "tok_timeout_then_charged"]
    products = [1, 2, 3, UNSHIPPABLE]
    checkouts = [
        begin(api, user, token=chance.choice(tokens), product_id=chance.choice(products)) for _ in range(ORDERS)
    ]
    for _ in range(8):
        for fault in chance.sample(["error", "error-after", "close-after", "garbage-after"], k=2):
            wire.provider.fail(fault, of=chance.choice(["POST", "GET", "POST /payments", "POST /shipments"]), times=2)
        wire.turn()
        late = chance.sample(checkouts, k=2)
        FulfilmentDeadline.objects.filter(fulfilment__in=[one.order_id for one in late]).update(due_at=database_now())
        work_off_deadlines()
        api.post(f"/api/orders/{chance.choice(checkouts).order_id}/cancel")
    wire.chance = None
    wire.rest()
    for order_id in Fulfilment.objects.filter(state__in=STUCK).values_list("pk", flat=True):
        ask(RETRY, order_id=order_id)
    wire.rest()
    payments, shipments = wire.provider.book("payments"), wire.provider.book("shipments")
    for one in checkouts:
        histories = [
            book.get(str(row.command_id), {"history": []})["history"]
            for book, step in ((payments, Step.PAYMENT), (shipments, Step.SHIPMENT))
            if (row := one.fulfilment.steps.get(step))
        ]
        state = one.fulfilment.state
        stands = [history for history in histories if history[-1:] in (["charged"], ["booked"])]
        assert (state, one.order.status, len(stands)) in [
            (State.COMPLETED, "PAID", 2),
            (State.CANCELLED, "CANCELLED", 0),
        ]
        # Nothing was done or undone twice.
        assert all(len(set(history)) == len(history) for history in histories)
    assert {one.fulfilment.state for one in checkouts} == {State.COMPLETED, State.CANCELLED}
