"""What operators see and do: admin's actions, each on record, the commands, and the gauges."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.test import Client
from rest_framework.test import APIClient

from events.wire.timestamps import now
from fulfilment.advancing import NotPossible, ask
from fulfilment.checks import participants_give_up_before_deadlines
from fulfilment.gauges import gauges_of, read_unfinished
from fulfilment.models import Fulfilment, FulfilmentStep
from fulfilment.tests.conftest import WAYS, Checkout, check_out, place
from fulfilment.transitions import RESOLVE, RETRY, TABLE, UNDO, State, Step

pytestmark = pytest.mark.django_db

LIST = "/admin/fulfilment/fulfilment/"
ORDERS = "/admin/orders/order/"


@pytest.fixture
def operator(client: Client) -> Client:
    """Return a client of a member of the group of operators."""
    operator = User.objects.create_user("operator", is_staff=True)
    operator.groups.add(Group.objects.get(name="operator"))
    client.force_login(operator)
    return client


def act(client: Client, checkout: Checkout, action: str) -> Any:
    """Run an action from the page of the fulfilment, and confirm it."""
    return client.post(f"{LIST}{checkout.order_id}/{action}/", {"confirmed": "yes"}, follow=True)


@pytest.mark.parametrize(
    ("state", "action", "follows"),
    [
        ("STUCK_REFUND", "retry", "REFUNDING"),
        ("STUCK_SHIPMENT", "retry", "CANCELLING_SHIPMENT"),
        ("STUCK_REFUND", "resolve", "CANCELLED"),
        ("STUCK_SHIPMENT", "resolve", "REFUNDING"),
        ("PAYING", "undo", "REFUNDING"),
        ("SHIPPING", "undo", "CANCELLING_SHIPMENT"),
        ("COMPLETED", "undo", "CANCELLING_SHIPMENT"),
    ],
)
def test_each_action_works_and_is_on_record(
    operator: Client, checkout: Checkout, state: str, action: str, follows: str
) -> None:
    checkout.replies(*WAYS[state])
    answer = act(operator, checkout, action)
    assert answer.status_code == 200
    assert checkout.fulfilment.state == follows
    entry = LogEntry.objects.get()
    assert entry.user.get_username() == "operator"
    assert entry.object_id == str(checkout.order_id)
    names = {"retry": "Retry step.", "resolve": "Mark as resolved.", "undo": "Undo now."}
    assert entry.get_change_message().startswith(names[action])
    assert follows in entry.get_change_message()


@pytest.mark.parametrize(
    ("state", "action"),
    [
        *((state, action) for state in WAYS if not state.startswith("STUCK") for action in ("retry", "resolve")),
        *((state, "undo") for state in WAYS if state not in ("PAYING", "SHIPPING", "COMPLETED")),
    ],
)
def test_an_action_that_the_state_does_not_allow_changes_nothing(
    operator: Client, checkout: Checkout, state: str, action: str
) -> None:
    checkout.replies(*WAYS[state])
    before = (checkout.shown, checkout.sent)
    act(operator, checkout, action)
    assert (checkout.shown, checkout.sent) == before
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [(state, one) for state in WAYS for one in (RETRY, RESOLVE, UNDO) if (State[state], one) not in TABLE],
)
def test_an_operator_who_comes_too_late_changes_nothing(checkout: Checkout, state: str, message: str) -> None:
    """The operator's page may show an older state than the fulfilment has."""
    checkout.replies(*WAYS[state])
    before = (checkout.shown, list(FulfilmentStep.objects.order_by("pk").values()))
    with pytest.raises(NotPossible):
        ask(message, order_id=checkout.order_id)
    assert (checkout.shown, list(FulfilmentStep.objects.order_by("pk").values())) == before


def test_a_retried_step_sends_its_command_under_the_same_id(operator: Client, checkout: Checkout) -> None:
    checkout.replies(*WAYS["STUCK_REFUND"])
    act(operator, checkout, "retry")
    refunds = [one for one in checkout.sent if one["eventType"] == "REFUND_PAYMENT"]
    assert len(refunds) == 2
    assert {one["commandId"] for one in refunds} == {str(checkout.command_id(Step.REFUND))}
    checkout.replies("PAYMENT_REFUNDED")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"


def test_a_resolved_refund_cancels_the_order(operator: Client, checkout: Checkout) -> None:
    checkout.replies(*WAYS["STUCK_REFUND"])
    act(operator, checkout, "resolve")
    assert checkout.shown["state"] == checkout.order.status == "CANCELLED"
    assert checkout.steps["REFUND"] == "DONE"
    assert checkout.shown["steps"][-1]["reason"] == "An operator marked it as resolved"


def test_support_may_look_but_not_act(client: Client, checkout: Checkout) -> None:
    staff = User.objects.create_user("support", is_staff=True)
    staff.groups.add(Group.objects.get(name="support"))
    client.force_login(staff)
    checkout.replies(*WAYS["STUCK_REFUND"])
    assert client.get(LIST).status_code == 200
    for action in ("retry", "undo", "resolve"):
        assert act(client, checkout, action).status_code == 403
    assert checkout.shown["state"] == "STUCK"


def test_the_page_offers_only_what_the_state_allows(admin_client: Client, checkout: Checkout) -> None:
    page = admin_client.get(f"{LIST}{checkout.order_id}/change/").content.decode()
    assert "/undo/" in page
    assert "/retry/" not in page
    checkout.replies(*WAYS["STUCK_REFUND"])
    page = admin_client.get(f"{LIST}{checkout.order_id}/change/").content.decode()
    assert "/retry/" in page
    assert "/resolve/" in page
    assert "/undo/" not in page
    assert str(checkout.command_id(Step.REFUND)) in page


def test_the_list_filters_by_state_and_finds_by_id(admin_client: Client, checkout: Checkout, user: User) -> None:
    other = place(user)
    check_out(checkout.api, other.pk)
    checkout.replies(*WAYS["STUCK_REFUND"])

    def listed(**query: Any) -> list[int]:
        return [row.pk for row in admin_client.get(LIST, query).context["cl"].result_list]

    assert listed() == [other.pk, checkout.order_id]
    assert listed(state__exact="STUCK_REFUND") == [checkout.order_id]
    assert listed(q=str(other.pk)) == [other.pk]
    assert listed(q=str(checkout.command_id(Step.REFUND))) == [checkout.order_id]
    assert listed(q="nothing") == []


def test_selected_fulfilments_are_retried_and_others_skipped(
    admin_client: Client, checkout: Checkout, user: User
) -> None:
    other = place(user)
    check_out(checkout.api, other.pk)
    checkout.replies(*WAYS["STUCK_REFUND"])
    selected = {"action": "retry_selected", "_selected_action": [checkout.order_id, other.pk]}
    question = admin_client.post(LIST, selected).content.decode()
    assert "Paying" in question
    admin_client.post(LIST, selected | {"confirmed": "yes"})
    assert checkout.fulfilment.state == State.REFUNDING
    assert Fulfilment.objects.get(pk=other.pk).state == State.PAYING


def test_the_page_of_the_order_shows_the_steps(admin_client: Client, checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED")
    checkout.reply("SHIPMENT_REFUSED", reason="<b>too heavy</b>")
    page = admin_client.get(f"{ORDERS}{checkout.order_id}/change/").content.decode()
    for part in ('data-step="PAYMENT" data-state="DONE"', 'data-step="REFUND" data-state="WAITING"', "&lt;b&gt;too"):
        assert part in page
    assert 'data-fulfilment="UNDOING"' in page


def test_a_step_leads_to_its_command_at_the_participant(admin_client: Client, checkout: Checkout) -> None:
    checkout.replies("PAYMENT_CHARGED", "SHIPMENT_REFUSED")
    lists = {
        Step.PAYMENT: "/admin/payments/paymentcommand/",
        Step.SHIPMENT: "/admin/shipping/shippingcommand/",
        Step.REFUND: "/admin/payments/paymentcommand/",
    }
    for page in (f"{LIST}{checkout.order_id}/change/", f"{ORDERS}{checkout.order_id}/change/"):
        text = admin_client.get(page).content.decode()
        for step, commands in lists.items():
            assert f'href="{commands}?q={checkout.command_id(step)}"' in text


def test_an_order_without_a_checkout_shows_no_fulfilment(admin_client: Client, user: User) -> None:
    assert "data-fulfilment" not in admin_client.get(f"{ORDERS}{place(user).pk}/change/").content.decode()


def test_the_sidebar_counts_stuck_fulfilments(admin_client: Client, checkout: Checkout) -> None:
    def badge() -> Any:
        groups = admin_client.get("/admin/").context["sidebar_navigation"]
        (entry,) = [one for group in groups for one in group["items"] if one["link"] == LIST]
        return entry["badge"]

    assert badge() is None
    checkout.replies(*WAYS["STUCK_REFUND"])
    assert badge() == "1"


def test_admin_does_not_pay_an_order_that_is_being_fulfilled(operator: Client, checkout: Checkout) -> None:
    assert (
        f"{ORDERS}{checkout.order_id}/pay/" not in operator.get(f"{ORDERS}{checkout.order_id}/change/").content.decode()
    )
    operator.post(f"{ORDERS}{checkout.order_id}/pay/", {"confirmed": "yes"})
    assert checkout.order.status == "PENDING"
    assert not LogEntry.objects.exists()


def test_admin_hands_a_cancellation_over(operator: Client, checkout: Checkout) -> None:
    operator.post(f"{ORDERS}{checkout.order_id}/cancel/", {"confirmed": "yes"})
    assert (checkout.order.status, checkout.shown["state"]) == ("PENDING", "UNDOING")
    assert "handed over" in LogEntry.objects.get().get_change_message()


def test_the_command_lists_what_is_under_way_or_stuck(checkout: Checkout, api: APIClient, user: User) -> None:
    stuck = Checkout(place(user).pk, api)
    check_out(api, stuck.order_id)
    stuck.replies("PAYMENT_CHARGED", "SHIPMENT_REFUSED")
    stuck.reply("REFUND_FAILED", reason="the account\nis closed")
    done = Checkout(place(user).pk, api)
    check_out(api, done.order_id)
    done.replies(*WAYS["COMPLETED"])

    def printed(*options: str) -> list[str]:
        output = StringIO()
        call_command("fulfilments", *options, stdout=output)
        return output.getvalue().splitlines()

    line, last = printed("--stuck")
    assert line.startswith(f"order {stuck.order_id}  STUCK since ")
    assert line.endswith(f"REFUND {stuck.command_id(Step.REFUND)} FAILED, attempts 1: the account is closed")
    assert last == "1 stuck"
    assert [one.split("  ")[0] for one in printed()] == [
        f"order {checkout.order_id}",
        f"order {stuck.order_id}",
        "2 unfinished",
    ]


def test_the_gauges_count_the_unfinished_by_state(checkout: Checkout, api: APIClient, user: User) -> None:
    empty = {"PAYING": 0, "SHIPPING": 0, "UNDOING": 0, "STUCK": 0}
    Fulfilment.objects.update(created_at=now() - timedelta(hours=1))
    found = read_unfinished()
    assert found.by_state == empty | {"PAYING": 1}
    assert 3600 <= found.oldest_under_way_seconds < 3700
    checkout.replies(*WAYS["STUCK_SHIPMENT"])
    assert read_unfinished() == (empty | {"STUCK": 1}, 0)
    checkout.replies("SHIPMENT_CANCELLED")
    assert read_unfinished().by_state == empty | {"UNDOING": 1}
    checkout.replies("PAYMENT_REFUNDED")
    assert read_unfinished() == (empty, 0)
    samples = [sample for gauge in gauges_of(read_unfinished()) for sample in gauge.samples]
    assert ("fulfilments_unfinished", {"state": "STUCK"}, 0) in [sample[:3] for sample in samples]


def test_metrics_have_the_gauges(client: Client, settings: Any, checkout: Checkout) -> None:
    settings.METRICS_TOKEN = "token"
    text = client.get("/metrics", headers={"authorization": "Bearer token"}).content.decode()
    for name in ("fulfilment_messages_total", "fulfilment_states_total", "fulfilment_foreign_replies_total"):
        assert name in text


def test_a_deadline_before_the_participant_gives_up_is_warned_of(settings: Any) -> None:
    assert participants_give_up_before_deadlines() == []
    settings.FULFILMENT_PAYMENT_TIMEOUT = settings.PAYMENT_GIVES_UP_AFTER
    (warning,) = participants_give_up_before_deadlines()
    assert warning.msg.startswith("FULFILMENT_PAYMENT_TIMEOUT is not longer than PAYMENT_GIVES_UP_AFTER")
