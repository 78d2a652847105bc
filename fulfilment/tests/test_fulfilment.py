"""Fulfilments that succeed, and fulfilments that are undone from each state. Replies may be doubled, late or forged."""

import json
import threading
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import DjangoCaptureOnCommitCallbacks
from rest_framework.test import APIClient

from events.consuming.handled import is_known_to, is_settled
from events.database_clock import database_now
from events.models import OutboxEvent
from events.outbox import recording
from events.outbox.publisher import RecordingPublisher
from events.subscriptions import subscription
from events.testing import deliver
from events.wire import commands
from events.wire.commands import Reply
from events.wire.timestamps import now
from events.work.worker import Worker
from fulfilment.advancing import messages_total
from fulfilment.models import Fulfilment, FulfilmentDeadline
from fulfilment.subscriptions import foreign_total
from fulfilment.tests.conftest import FULFILMENT, WAYS, Checkout, check_out, place, work_off_deadlines
from fulfilment.transitions import REPLIES, State, Step
from fulfilment.work import DEADLINES
from testkit.factories import UserFactory
from testkit.participants.clock import shift_clock

pytestmark = pytest.mark.django_db


def test_a_checkout_answers_the_fulfilment_and_its_path(api: APIClient, user: User) -> None:
    order = place(user)
    answer = check_out(api, order.pk)
    assert answer.status_code == 202
    assert answer["Location"] == f"/api/orders/{order.pk}/fulfilment"
    body = api.get(answer["Location"]).json()
    assert body == answer.json()
    (step,) = body.pop("steps")
    assert (step["step"], step["state"], step["reason"]) == ("PAYMENT", "WAITING", "")
    assert body.pop("deadlineAt") > step["at"]
    assert body == {"orderId": order.pk, "state": "PAYING", "reason": ""}


def test_a_checkout_charges_the_amount_of_the_order(checkout: Checkout) -> None:
    (command,) = checkout.sent
    assert command["eventType"] == "CHARGE_PAYMENT"
    assert (command["amount"], command["paymentToken"], command["reference"]) == (200, "tok_ok", checkout.order_id)
    assert command["commandId"] == str(checkout.command_id(Step.PAYMENT))
    assert checkout.order.status == "PENDING"


def test_a_command_is_published_at_once(
    api: APIClient,
    user: User,
    publisher: RecordingPublisher,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    order = place(user)
    with django_capture_on_commit_callbacks(execute=True):
        check_out(api, order.pk)
    assert [message.event_type for message in publisher.published] == ["CHARGE_PAYMENT"]
    with django_capture_on_commit_callbacks(execute=True):
        Checkout(order.pk, api).replies("PAYMENT_CHARGED")
    assert [message.event_type for message in publisher.published[1:]] == ["ORDER_PAID", "BOOK_SHIPMENT"]


@pytest.mark.parametrize("token", [None, "", " ", "tok ok", "tok\n", "x" * 256, 7, True, [], {}, "töken"])
def test_a_token_that_is_none_is_400(api: APIClient, user: User, token: Any) -> None:
    order = place(user)
    answer = check_out(api, order.pk, token)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/paymentToken"
    assert not Fulfilment.objects.exists()


def test_a_checkout_without_a_token_is_400(api: APIClient, user: User) -> None:
    assert api.post(f"/api/orders/{place(user).pk}/checkout", {}, format="json").status_code == 400


def test_an_order_of_another_user_is_404(api: APIClient, checkout: Checkout) -> None:
    other = APIClient()
    other.force_authenticate(UserFactory.create())
    assert check_out(other, checkout.order_id).status_code == 404
    assert other.get(f"/api/orders/{checkout.order_id}/fulfilment").status_code == 404
    assert other.post(f"/api/orders/{checkout.order_id}/cancel").status_code == 404
    assert check_out(api, 2**40).status_code == 404


def test_an_order_without_a_checkout_has_no_fulfilment(api: APIClient, user: User) -> None:
    assert api.get(f"/api/orders/{place(user).pk}/fulfilment").status_code == 404


@pytest.mark.parametrize("change", ["pay", "cancel"])
def test_only_a_pending_order_can_be_checked_out(api: APIClient, user: User, change: str) -> None:
    order = place(user)
    api.post(f"/api/orders/{order.pk}/{change}")
    answer = check_out(api, order.pk)
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("and cannot be checked out.")
    assert not Fulfilment.objects.exists()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_second_checkout_is_409_in_every_state(checkout: Checkout, way: list[str]) -> None:
    checkout.replies(*way)
    sent = checkout.sent
    answer = check_out(checkout.api, checkout.order_id)
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("was checked out before.")
    assert checkout.sent == sent


def test_the_way_forward_ends_paid_and_shipped(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED")
    assert checkout.shown["state"] == "SHIPPING"
    assert checkout.order.status == "PAID"
    assert checkout.order_events == ["ORDER_CREATED", "ORDER_PAID"]
    booking = checkout.sent[1]
    assert (booking["eventType"], booking["items"]) == ("BOOK_SHIPMENT", [{"productId": 1, "quantity": 2}])
    checkout.replies("SHIPMENT_BOOKED")
    assert checkout.shown["state"] == "COMPLETED"
    assert checkout.shown["deadlineAt"] is None
    assert checkout.steps == {"PAYMENT": "DONE", "SHIPMENT": "DONE"}
    assert checkout.sent_types == ["CHARGE_PAYMENT", "BOOK_SHIPMENT"]


def test_a_declined_payment_cancels_the_order(checkout: Checkout) -> None:
    checkout.reply("PAYMENT_DECLINED", reason="insufficient funds")
    assert checkout.shown["state"] == "CANCELLED"
    assert checkout.shown["reason"] == "PAYMENT_DECLINED: insufficient funds"
    assert checkout.steps == {"PAYMENT": "REFUSED"}
    assert checkout.shown["steps"][0]["reason"] == "insufficient funds"
    assert checkout.order_events == ["ORDER_CREATED", "ORDER_CANCELLED"]
    assert checkout.sent_types == ["CHARGE_PAYMENT"]


WAYS_BACK = {
    "payment_failed": ["PAYMENT_FAILED", "PAYMENT_REFUNDED"],
    "shipment_refused": ["PAYMENT_CHARGED", "SHIPMENT_REFUSED", "PAYMENT_REFUNDED"],
    "shipment_failed": ["PAYMENT_CHARGED", "SHIPMENT_FAILED", "SHIPMENT_CANCELLED", "PAYMENT_REFUNDED"],
    "payment_late": ["DEADLINE", "PAYMENT_REFUNDED"],
    "shipment_late": ["PAYMENT_CHARGED", "DEADLINE", "SHIPMENT_CANCELLED", "PAYMENT_REFUNDED"],
    "cancelled_while_paying": ["cancel", "PAYMENT_REFUNDED"],
    "cancelled_while_shipping": ["PAYMENT_CHARGED", "cancel", "SHIPMENT_CANCELLED", "PAYMENT_REFUNDED"],
    "cancelled_afterwards": [
        "PAYMENT_CHARGED",
        "SHIPMENT_BOOKED",
        "cancel",
        "SHIPMENT_CANCELLED",
        "PAYMENT_REFUNDED",
    ],
}


@pytest.mark.parametrize("way", WAYS_BACK.values(), ids=WAYS_BACK)
def test_each_way_back_undoes_what_may_have_been_done(checkout: Checkout, way: list[str]) -> None:
    for message in way:
        if message == "DEADLINE":
            checkout.pass_deadline()
        elif message == "cancel":
            assert checkout.api.post(f"/api/orders/{checkout.order_id}/cancel").status_code == 202
        else:
            assert checkout.order.status != "CANCELLED"
            checkout.replies(message)
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.shown["reason"]
    was_paid = "PAYMENT_CHARGED" in way
    may_be_booked = "SHIPMENT_CANCELLED" in way
    assert checkout.sent_types == [
        "CHARGE_PAYMENT",
        *["BOOK_SHIPMENT"] * was_paid,
        *["CANCEL_SHIPMENT"] * may_be_booked,
        "REFUND_PAYMENT",
    ]
    assert checkout.order_events == ["ORDER_CREATED", *["ORDER_PAID"] * was_paid, "ORDER_CANCELLED"]
    by_type = {command["eventType"]: command for command in checkout.sent}
    assert by_type["REFUND_PAYMENT"]["chargeId"] == by_type["CHARGE_PAYMENT"]["commandId"]
    if may_be_booked:
        assert by_type["CANCEL_SHIPMENT"]["bookingId"] == by_type["BOOK_SHIPMENT"]["commandId"]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_pay_is_409_in_every_state_of_a_fulfilment(checkout: Checkout, way: list[str]) -> None:
    checkout.replies(*way)
    before = checkout.order.status
    assert checkout.api.post(f"/api/orders/{checkout.order_id}/pay").status_code == 409
    assert checkout.order.status == before


@pytest.mark.parametrize(
    ("state", "expected", "follows"),
    [
        ("PAYING", 202, "REFUNDING"),
        ("SHIPPING", 202, "CANCELLING_SHIPMENT"),
        ("COMPLETED", 202, "CANCELLING_SHIPMENT"),
        ("CANCELLING_SHIPMENT", 202, "CANCELLING_SHIPMENT"),
        ("REFUNDING", 202, "REFUNDING"),
        ("CANCELLED", 409, "CANCELLED"),
        ("STUCK_SHIPMENT", 202, "STUCK_SHIPMENT"),
        ("STUCK_REFUND", 202, "STUCK_REFUND"),
    ],
)
def test_cancel_undoes_from_every_state(checkout: Checkout, state: str, expected: int, follows: str) -> None:
    checkout.replies(*WAYS[state])
    before = checkout.order.status
    answer = checkout.api.post(f"/api/orders/{checkout.order_id}/cancel")
    assert answer.status_code == expected
    if expected == 202:
        assert (answer.json()["id"], answer.json()["status"]) == (checkout.order_id, before)
    assert checkout.fulfilment.state == follows
    assert checkout.order.status == before


def test_a_second_cancel_changes_nothing(checkout: Checkout) -> None:
    for _ in range(3):
        assert checkout.api.post(f"/api/orders/{checkout.order_id}/cancel").status_code == 202
    assert checkout.sent_types == ["CHARGE_PAYMENT", "REFUND_PAYMENT"]


@pytest.mark.parametrize("way", [*WAYS.values(), *(w for w in WAYS_BACK.values() if not {"DEADLINE", "cancel"} & {*w})])
def test_doubled_replies_change_nothing(checkout: Checkout, way: list[str]) -> None:
    """A reply comes again as the same message, and as a new message with the same content."""
    for event_type in way:
        value = checkout.reply_value(event_type)
        again = json.dumps(json.loads(value) | {"eventId": str(uuid4())}).encode()
        assert deliver(subscription(FULFILMENT), [value, value, again]) == []
    seen = (checkout.shown, checkout.sent, checkout.order_events)
    for event_type in way:
        checkout.replies(event_type)
    assert (checkout.fulfilment.state, checkout.sent, checkout.order_events) == (
        Fulfilment.objects.get().state,
        *seen[1:],
    )
    assert checkout.shown["state"] == seen[0]["state"]
    types = checkout.sent_types
    assert len(types) == len(set(types))


def test_a_charge_after_its_deadline_is_refunded(checkout: Checkout) -> None:
    checkout.pass_deadline()
    assert checkout.shown["state"] == "UNDOING"
    checkout.replies("PAYMENT_CHARGED")
    assert checkout.shown["state"] == "UNDOING"
    assert checkout.order.status == "PENDING"
    checkout.replies("PAYMENT_REFUNDED")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.steps == {"PAYMENT": "DONE", "REFUND": "DONE"}


def test_a_charge_reported_after_its_refund_changes_nothing(checkout: Checkout) -> None:
    checkout.pass_deadline()
    checkout.replies("PAYMENT_REFUNDED", "PAYMENT_CHARGED")
    assert checkout.shown["state"] == "CANCELLED"
    assert checkout.sent_types == ["CHARGE_PAYMENT", "REFUND_PAYMENT"]


def test_a_charge_after_a_decline_is_refunded(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_DECLINED", "PAYMENT_CHARGED")
    assert checkout.shown["state"] == "UNDOING"
    checkout.replies("PAYMENT_REFUNDED")
    assert checkout.shown["state"] == "CANCELLED"
    assert checkout.order_events == ["ORDER_CREATED", "ORDER_CANCELLED"]


def test_a_booking_after_a_refusal_is_cancelled(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED", "SHIPMENT_REFUSED", "SHIPMENT_BOOKED")
    assert checkout.fulfilment.state == State.CANCELLING_SHIPMENT
    # The reply to the refund that is already under way comes first.
    checkout.replies("PAYMENT_REFUNDED", "SHIPMENT_CANCELLED", "PAYMENT_REFUNDED")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    refunds = {command["commandId"] for command in checkout.sent if command["eventType"] == "REFUND_PAYMENT"}
    assert len(refunds) == 1


def test_a_booking_after_its_deadline_is_cancelled(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED")
    checkout.pass_deadline()
    checkout.replies("SHIPMENT_BOOKED", "SHIPMENT_CANCELLED", "PAYMENT_REFUNDED")
    assert checkout.shown["state"] == "CANCELLED"


def test_a_reply_may_come_before_its_command_is_marked_as_sent(checkout: Checkout) -> None:
    assert not OutboxEvent.objects.filter(published_at__isnull=False).exists()
    checkout.replies("PAYMENT_CHARGED", "SHIPMENT_BOOKED")
    assert checkout.shown["state"] == "COMPLETED"


@pytest.mark.parametrize("event_type", REPLIES)
def test_a_forged_reply_changes_nothing(checkout: Checkout, event_type: str, user: User) -> None:
    """Replies name an unknown command, another order's command, and the command of another step."""
    other = place(user)
    check_out(checkout.api, other.pk)
    of_other = Checkout(other.pk, checkout.api).command_id(Step.PAYMENT)
    before = (checkout.shown, checkout.sent)
    forged = [
        {"command_id": uuid4()},
        {"command_id": of_other},
        {"command_id": uuid4(), "reference": 2**62},
        *([{"command_id": checkout.command_id(Step.PAYMENT)}] if REPLIES[event_type][0] != Step.PAYMENT else []),
    ]
    for changes in forged:
        assert checkout.reply(event_type, **changes) == []
    assert (checkout.shown, checkout.sent) == before
    assert Fulfilment.objects.get(pk=other.pk).state == State.PAYING


@pytest.mark.parametrize(
    "value",
    [b"", b"{}", b"null", None, b'{"eventType":"PAYMENT_CHARGED"}', b'{"eventType":"CHARGE_PAYMENT"}', b"\xff"],
)
def test_a_message_that_is_no_reply_is_a_dead_letter_alone(checkout: Checkout, value: bytes | None) -> None:
    letters = deliver(subscription(FULFILMENT), [value, checkout.reply_value("PAYMENT_CHARGED")])
    assert len(letters) == 1
    assert checkout.shown["state"] == "SHIPPING"


def test_a_reason_of_any_size_and_with_nul_is_stored(checkout: Checkout) -> None:
    assert checkout.reply("PAYMENT_DECLINED", reason="\0" + "x" * 100_000) == []
    assert len(checkout.shown["reason"]) < 1_000


def test_replies_of_many_orders_come_in_one_batch(api: APIClient, user: User) -> None:
    checkouts = [Checkout(place(user).pk, api) for _ in range(5)]
    for one in checkouts:
        check_out(api, one.order_id)
    charged = [one.reply_value("PAYMENT_CHARGED") for one in reversed(checkouts)]
    declined = checkouts[0].reply_value("PAYMENT_DECLINED")
    assert deliver(subscription(FULFILMENT), [declined, *charged]) == []
    assert [one.fulfilment.state for one in checkouts] == [State.REFUNDING, *[State.SHIPPING] * 4]


def test_state_order_and_command_commit_together(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(messages: Any) -> None:
        if any(message.event_type == "BOOK_SHIPMENT" for message in messages):
            raise OSError("the disk is full")
        record_all(messages)

    record_all = recording.record_all
    monkeypatch.setattr(recording, "record_all", fail)
    with pytest.raises(Exception, match="disk"):
        checkout.reply("PAYMENT_CHARGED")
    assert checkout.fulfilment.state == State.PAYING
    assert checkout.order.status == "PENDING"
    assert checkout.steps == {"PAYMENT": "WAITING"}
    monkeypatch.undo()
    checkout.replies("PAYMENT_CHARGED")
    assert checkout.shown["state"] == "SHIPPING"


def test_a_deadline_that_is_not_the_current_one_changes_nothing(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED")
    current = checkout.fulfilment.deadline_at
    assert current is not None
    FulfilmentDeadline.objects.exclude(at=current).update(due_at=now())
    assert work_off_deadlines() == 1
    assert checkout.fulfilment.state == State.SHIPPING
    assert FulfilmentDeadline.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_deadline_fires_within_two_seconds(api: APIClient, user: User, settings: Any) -> None:
    settings.FULFILMENT_PAYMENT_TIMEOUT = timedelta(seconds=1)
    order = place(user)
    check_out(api, order.pk)
    begun = Fulfilment.objects.get()
    give_up_at = time.monotonic() + 20

    def has_fired() -> bool:
        assert time.monotonic() < give_up_at
        return Fulfilment.objects.get().state == State.REFUNDING

    Worker(DEADLINES, stopping=has_fired, wait=time.sleep).run()
    assert begun.deadline_at is not None
    assert timedelta(0) <= Fulfilment.objects.get().changed_at - begun.deadline_at < timedelta(seconds=2)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_moves_no_deadline(
    hours: int, api: APIClient, user: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = place(user)
    shift_clock(monkeypatch, timedelta(hours=hours))
    check_out(api, order.pk)
    assert work_off_deadlines() == 0
    Checkout(order.pk, api).reply("PAYMENT_CHARGED")
    longest = settings.FULFILMENT_PAYMENT_TIMEOUT + settings.FULFILMENT_SHIPMENT_TIMEOUT
    due = FulfilmentDeadline.objects.values_list("due_at", flat=True)
    assert all(timedelta(0) < one - database_now() <= longest for one in due)
    assert len(due) == 2


def test_no_deadline_is_left_after_the_end(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED", "SHIPMENT_BOOKED")
    FulfilmentDeadline.objects.update(due_at=now())
    assert work_off_deadlines() == 2
    assert not FulfilmentDeadline.objects.exists()
    assert checkout.shown["state"] == "COMPLETED"


@pytest.mark.parametrize(
    ("way", "stuck", "command"),
    [
        (["PAYMENT_CHARGED", "SHIPMENT_REFUSED"], State.STUCK_REFUND, "REFUND_PAYMENT"),
        (["PAYMENT_CHARGED", "SHIPMENT_FAILED"], State.STUCK_SHIPMENT, "CANCEL_SHIPMENT"),
    ],
)
def test_an_undoing_step_without_reply_is_repeated_then_stuck(
    checkout: Checkout, settings: Any, way: list[str], stuck: State, command: str
) -> None:
    settings.FULFILMENT_UNDO_ATTEMPTS = 3
    checkout.replies(*way)
    pauses: list[float] = []
    while checkout.fulfilment.state != stuck:
        assert len(pauses) < 10
        fulfilment = checkout.fulfilment
        pauses.append(
            (fulfilment.deadline_at - fulfilment.step_rows.latest("at").at) / settings.FULFILMENT_UNDO_TIMEOUT
        )
        checkout.pass_deadline()
    assert pauses == [1, 2, 4]
    repeated = [one for one in checkout.sent if one["eventType"] == command]
    assert len(repeated) == 3
    assert len({one["commandId"] for one in repeated}) == 1
    assert len({one["eventId"] for one in repeated}) == 3
    assert checkout.shown["state"] == "STUCK"
    assert checkout.shown["deadlineAt"] is None


@pytest.mark.parametrize(
    ("way", "failure", "stuck"),
    [
        (["PAYMENT_CHARGED", "SHIPMENT_REFUSED"], "REFUND_FAILED", State.STUCK_REFUND),
        (["PAYMENT_CHARGED", "SHIPMENT_FAILED"], "SHIPMENT_CANCELLATION_FAILED", State.STUCK_SHIPMENT),
    ],
)
def test_a_failed_undoing_step_is_tried_again_after_pauses(
    checkout: Checkout, settings: Any, way: list[str], failure: str, stuck: State
) -> None:
    settings.FULFILMENT_UNDO_ATTEMPTS = 3
    checkout.replies(*way)
    name, before = REPLIES[failure][0], checkout.fulfilment.state
    pauses = []
    for _ in range(2):
        sent = len(checkout.sent)
        checkout.reply(failure, reason="away")
        deadline_at = checkout.fulfilment.deadline_at
        # The failure is doubled, too.
        checkout.reply(failure, reason="away")
        assert checkout.fulfilment.deadline_at == deadline_at
        assert (checkout.fulfilment.state, len(checkout.sent)) == (before, sent)
        pauses.append((deadline_at - checkout.fulfilment.steps[name].at) / settings.FULFILMENT_UNDO_PAUSE)
        checkout.pass_deadline()
        assert len(checkout.sent) == sent + 1
    assert pauses == pytest.approx([1, 2], abs=0.02)
    checkout.reply(failure, reason="away")
    assert checkout.fulfilment.state == stuck
    failed = checkout.fulfilment.steps[name]
    assert (failed.state, failed.reason, failed.attempts) == ("FAILED", "away", 3)


def test_a_failure_of_a_step_that_is_not_awaited_waits(checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED", "SHIPMENT_REFUSED", "SHIPMENT_BOOKED")
    assert checkout.fulfilment.state == State.CANCELLING_SHIPMENT
    checkout.replies("REFUND_FAILED")
    assert checkout.fulfilment.state == State.CANCELLING_SHIPMENT
    checkout.replies("SHIPMENT_CANCELLED", "PAYMENT_REFUNDED")
    assert checkout.shown["state"] == "CANCELLED"


def test_a_success_during_a_pause_goes_on(checkout: Checkout, settings: Any) -> None:
    settings.FULFILMENT_UNDO_ATTEMPTS = 3
    checkout.replies("PAYMENT_FAILED", "REFUND_FAILED", "PAYMENT_REFUNDED")
    assert checkout.shown["state"] == "CANCELLED"
    FulfilmentDeadline.objects.update(due_at=now())
    work_off_deadlines()
    assert checkout.sent_types == ["CHARGE_PAYMENT", "REFUND_PAYMENT"]


@pytest.mark.parametrize(
    ("stuck", "reply", "follows"),
    [("STUCK_REFUND", "PAYMENT_REFUNDED", "CANCELLED"), ("STUCK_SHIPMENT", "SHIPMENT_CANCELLED", "UNDOING")],
)
def test_a_late_success_frees_a_stuck_fulfilment(checkout: Checkout, stuck: str, reply: str, follows: str) -> None:
    checkout.replies(*WAYS[stuck])
    assert checkout.shown["state"] == "STUCK"
    checkout.replies(reply)
    assert checkout.shown["state"] == follows


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", range(5))
def test_of_a_reply_and_a_deadline_at_one_moment_one_decides(user: User, attempt: int) -> None:
    api = APIClient()
    api.force_authenticate(user)
    checkouts = [Checkout(place(user).pk, api) for _ in range(10)]
    for one in checkouts:
        check_out(api, one.order_id)
    values = [one.reply_value("PAYMENT_CHARGED") for one in reversed(checkouts)]
    FulfilmentDeadline.objects.update(due_at=now() - timedelta(seconds=1))
    barrier = threading.Barrier(2)
    ended: dict[str, Any] = {}

    def reply() -> None:
        barrier.wait()
        ended["dead letters"] = deliver(subscription(FULFILMENT), values)
        connection.close()

    def pass_deadlines() -> None:
        barrier.wait()
        ended["deadlines"] = work_off_deadlines()
        connection.close()

    threads = [threading.Thread(target=reply), threading.Thread(target=pass_deadlines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == {"dead letters": [], "deadlines": 10}
    assert not FulfilmentDeadline.objects.exclude(last_error="").exists()
    for one in checkouts:
        expected = {State.SHIPPING: ("PAID", "BOOK_SHIPMENT"), State.REFUNDING: ("PENDING", "REFUND_PAYMENT")}
        assert (one.order.status, one.sent_types[1]) == expected[State(one.fulfilment.state)]
        assert len(one.sent_types) == 2


def test_each_reply_is_counted_by_its_outcome(
    checkout: Checkout, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    def counts() -> list[float]:
        labels = [("PAYMENT_CHARGED", "applied"), ("PAYMENT_CHARGED", "ignored")]
        return [messages_total.labels(*one)._value.get() for one in labels] + [foreign_total._value.get()]

    before = counts()
    with django_capture_on_commit_callbacks(execute=True):
        checkout.replies("PAYMENT_CHARGED", "PAYMENT_CHARGED")
        checkout.reply("PAYMENT_CHARGED", command_id=uuid4())
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1]


def test_a_handled_reply_without_a_stream_is_settled(checkout: Checkout) -> None:
    """The outbox row of a reply has no stream. It counts as settled once the fulfilment group has handled the reply.

    Otherwise `prune_events` would keep the row for ever, and `reconcile_events` would send the reply again each time.
    """
    reply = Reply(
        event_id=uuid4(),
        event_type="PAYMENT_CHARGED",
        timestamp=now(),
        command_id=checkout.command_id(Step.PAYMENT),
        reference=checkout.order_id,
    )
    recording.record(commands.message(reply, topic="fulfilment-replies", source="/payments"))
    group = subscription(FULFILMENT)
    row = OutboxEvent.objects.filter(event_id=reply.event_id)
    assert not row.filter(is_known_to(group)).exists()
    deliver(group, [commands.encode(reply)])
    assert row.filter(is_known_to(group)).exists()
    assert row.filter(is_settled()).exists()
