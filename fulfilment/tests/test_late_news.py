"""Replies that come after a step seemed to have ended, and orders that were cancelled outside of their fulfilment.

A step seems to have ended when its participant refuses the command, or when an operator marks it as resolved.
"""

import pytest

from fulfilment.advancing import NotPossible, ask
from fulfilment.tests.conftest import WAYS, Checkout
from fulfilment.transitions import REPLIES, RESOLVE, RETRY, UNDO, State, Step
from orders.services import lock_order, mark_as_cancelled, save_changes

pytestmark = pytest.mark.django_db

UNKNOWN_REFUND = ["PAYMENT_FAILED", "REFUND_FAILED"]
UNKNOWN_SHIPMENT = ["PAYMENT_CHARGED", "SHIPMENT_FAILED", "SHIPMENT_CANCELLATION_FAILED"]
KNOWN_SHIPMENT = [*UNKNOWN_SHIPMENT, "SHIPMENT_BOOKED"]


def resolve_after(checkout: Checkout, way: list[str]) -> None:
    checkout.replies(*way)
    ask(RESOLVE, order_id=checkout.order_id)


# --- An operator marked a step as resolved, which voids nothing at the provider -------------------


@pytest.mark.parametrize("reply", ["PAYMENT_CHARGED", "PAYMENT_FAILED"])
def test_a_charge_first_known_after_a_resolution_is_refunded(checkout: Checkout, reply: str) -> None:
    resolve_after(checkout, UNKNOWN_REFUND)
    assert checkout.shown["state"] == "CANCELLED"
    checkout.replies(reply)
    assert checkout.fulfilment.state == State.REFUNDING
    checkout.replies("PAYMENT_REFUNDED", "PAYMENT_CHARGED", "PAYMENT_FAILED")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.sent_types == ["CHARGE_PAYMENT", "REFUND_PAYMENT", "REFUND_PAYMENT"]
    assert checkout.order_events == ["ORDER_CREATED", "ORDER_CANCELLED"]


@pytest.mark.parametrize("reply", ["SHIPMENT_BOOKED", "SHIPMENT_FAILED"])
@pytest.mark.parametrize("then", [[], ["REFUND_FAILED"], ["PAYMENT_REFUNDED"]])
def test_a_booking_first_known_after_a_resolution_is_cancelled(checkout: Checkout, then: list[str], reply: str) -> None:
    resolve_after(checkout, UNKNOWN_SHIPMENT)
    checkout.replies(*then, reply)
    assert checkout.fulfilment.state == State.CANCELLING_SHIPMENT
    checkout.replies("SHIPMENT_CANCELLED", "PAYMENT_REFUNDED", reply)
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.sent_types.count("CANCEL_SHIPMENT") == 2


@pytest.mark.parametrize("reply", ["PAYMENT_CHARGED", "PAYMENT_DECLINED", "PAYMENT_FAILED", "REFUND_FAILED"])
@pytest.mark.parametrize(
    "way",
    [
        WAYS["STUCK_REFUND"],
        [*UNKNOWN_REFUND, "PAYMENT_CHARGED"],
        ["PAYMENT_CHARGED", "PAYMENT_DECLINED", "SHIPMENT_CANCELLED", "REFUND_FAILED"],
    ],
)
def test_a_known_charge_refunded_by_hand_is_not_refunded_again(checkout: Checkout, way: list[str], reply: str) -> None:
    resolve_after(checkout, way)
    sent = checkout.sent
    checkout.replies(reply, "PAYMENT_CHARGED")
    assert checkout.shown["state"] == "CANCELLED"
    assert checkout.sent == sent


@pytest.mark.parametrize("reply", ["SHIPMENT_BOOKED", "SHIPMENT_REFUSED", "SHIPMENT_FAILED"])
def test_a_known_booking_cancelled_by_hand_stays_final(checkout: Checkout, reply: str) -> None:
    resolve_after(checkout, KNOWN_SHIPMENT)
    sent = checkout.sent
    checkout.replies(reply, "SHIPMENT_BOOKED")
    assert (checkout.fulfilment.state, checkout.sent) == (State.REFUNDING, sent)


def test_a_booking_after_a_refund_by_hand_is_cancelled_alone(checkout: Checkout) -> None:
    resolve_after(checkout, WAYS["STUCK_REFUND"])
    checkout.replies("SHIPMENT_BOOKED", "SHIPMENT_CANCELLED")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.sent_types == ["CHARGE_PAYMENT", "BOOK_SHIPMENT", "REFUND_PAYMENT", "CANCEL_SHIPMENT"]


def test_an_undoing_that_follows_a_resolution_is_certain(checkout: Checkout) -> None:
    resolve_after(checkout, UNKNOWN_REFUND)
    checkout.replies("PAYMENT_REFUNDED", "PAYMENT_CHARGED")
    assert checkout.shown["state"] == "CANCELLED"
    assert checkout.sent_types == ["CHARGE_PAYMENT", "REFUND_PAYMENT"]


# --- A participant refuses a command and then gives it up, so it contradicts itself ---------------


def test_a_charge_given_up_after_a_decline_is_refunded(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_DECLINED", "PAYMENT_FAILED")
    assert checkout.fulfilment.state == State.REFUNDING
    checkout.replies("PAYMENT_REFUNDED", "PAYMENT_FAILED", "PAYMENT_DECLINED", "PAYMENT_FAILED")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.sent_types == ["CHARGE_PAYMENT", "REFUND_PAYMENT"]


@pytest.mark.parametrize("then", [[], ["REFUND_FAILED"], ["PAYMENT_REFUNDED"]])
def test_a_booking_given_up_after_a_refusal_is_cancelled(checkout: Checkout, then: list[str]) -> None:
    checkout.replies("PAYMENT_CHARGED", "SHIPMENT_REFUSED", *then, "SHIPMENT_FAILED")
    assert checkout.fulfilment.state == State.CANCELLING_SHIPMENT
    checkout.replies("SHIPMENT_CANCELLED", "PAYMENT_REFUNDED", "SHIPMENT_FAILED")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.sent_types.count("CANCEL_SHIPMENT") == 1


@pytest.mark.parametrize("way", [["cancel"], ["DEADLINE"], ["PAYMENT_FAILED"]])
def test_a_give_up_after_a_completed_refund_changes_nothing(checkout: Checkout, way: list[str]) -> None:
    for message in way:
        match message:
            case "cancel":
                checkout.api.post(f"/api/orders/{checkout.order_id}/cancel")
            case "DEADLINE":
                checkout.pass_deadline()
            case _:
                checkout.replies(message)
    checkout.replies("PAYMENT_REFUNDED", "PAYMENT_FAILED")
    assert checkout.shown["state"] == "CANCELLED"
    assert checkout.sent_types == ["CHARGE_PAYMENT", "REFUND_PAYMENT"]


# --- A process without the fulfilment has cancelled the order --------------------------------------


def cancel_past_the_fulfilment(checkout: Checkout) -> None:
    """Cancel the order and leave its fulfilment unchanged, as a web process of a release without fulfilments does."""
    save_changes(mark_as_cancelled(lock_order(order_id=checkout.order_id)))


@pytest.mark.parametrize(
    ("way", "news", "follows"),
    [
        *(([], news, State.REFUNDING) for news in ("PAYMENT_CHARGED", "PAYMENT_FAILED", "PAYMENT_DECLINED")),
        *(
            (["PAYMENT_CHARGED"], news, State.CANCELLING_SHIPMENT)
            for news in ("SHIPMENT_BOOKED", "SHIPMENT_FAILED", "SHIPMENT_REFUSED", "PAYMENT_CHARGED")
        ),
        (WAYS["COMPLETED"], "SHIPMENT_BOOKED", State.CANCELLING_SHIPMENT),
    ],
)
def test_news_of_an_order_cancelled_elsewhere_lead_to_undoing(
    checkout: Checkout, way: list[str], news: str, follows: State
) -> None:
    checkout.replies(*way)
    cancel_past_the_fulfilment(checkout)
    checkout.replies(news)
    assert checkout.fulfilment.state == follows
    assert checkout.steps[REPLIES[news][0]] == REPLIES[news][1]
    checkout.replies(*["SHIPMENT_CANCELLED"] * (follows == State.CANCELLING_SHIPMENT), "PAYMENT_REFUNDED")
    assert checkout.fulfilment.state == State.CANCELLED
    assert checkout.order_events[-1] == "ORDER_CANCELLED"
    assert checkout.order_events.count("ORDER_CANCELLED") == 1


@pytest.mark.parametrize(
    ("way", "command", "step"),
    [([], "REFUND_PAYMENT", Step.REFUND), (["PAYMENT_CHARGED"], "CANCEL_SHIPMENT", Step.SHIPMENT_CANCELLATION)],
)
def test_a_deadline_of_an_order_cancelled_elsewhere_undoes_once(
    checkout: Checkout, way: list[str], command: str, step: Step
) -> None:
    checkout.replies(*way)
    cancel_past_the_fulfilment(checkout)
    checkout.pass_deadline()
    assert checkout.sent_types[-1] == command
    assert checkout.sent_types.count(command) == 1
    assert checkout.fulfilment.steps[step].attempts == 1


def test_an_operator_undoes_an_order_cancelled_elsewhere(checkout: Checkout) -> None:
    checkout.replies(*WAYS["COMPLETED"])
    cancel_past_the_fulfilment(checkout)
    ask(UNDO, order_id=checkout.order_id)
    assert checkout.fulfilment.state == State.CANCELLING_SHIPMENT


@pytest.mark.parametrize("message", [RETRY, RESOLVE])
def test_an_operator_undoes_such_an_order_only_by_saying_so(checkout: Checkout, message: str) -> None:
    cancel_past_the_fulfilment(checkout)
    with pytest.raises(NotPossible, match="Paying"):
        ask(message, order_id=checkout.order_id)
    assert checkout.fulfilment.state == State.PAYING
    ask(UNDO, order_id=checkout.order_id)
    assert checkout.fulfilment.state == State.REFUNDING
