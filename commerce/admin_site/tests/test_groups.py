"""Permissions in admin: support may view, operators may also act. Migrations create both groups."""

from decimal import Decimal

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from notifications.models import EmailDelivery
from orders.models import Order
from orders.services import Line, place_order
from testkit.factories import EmailDeliveryFactory, kafka_record

pytestmark = pytest.mark.django_db


@pytest.fixture
def order() -> Order:
    """Return a new order. Also create a dead letter and a notification with a failed e-mail, both unrelated to it."""
    record_dead_letter(record=kafka_record(b"garbage"), error=Poison("no event"), group="group")
    EmailDeliveryFactory.create(state="failed")
    user = User.objects.create_user("customer")
    return place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order


def member(client: Client, group: str) -> Client:
    user = User.objects.create_user(group, is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client.force_login(user)
    return client


def pages(order: Order) -> dict[str, str]:
    """Return the path of the page of each action, by the name of the action."""
    letter, row = DeadLetter.objects.get(), OutboxEvent.objects.get(stream=order.stream)
    return {
        "pay": f"/admin/orders/order/{order.pk}/pay/",
        "cancel": f"/admin/orders/order/{order.pk}/cancel/",
        "replay": f"/admin/events/deadletter/{letter.pk}/replay/",
        "dismiss": f"/admin/events/deadletter/{letter.pk}/dismiss/",
        "send again": f"/admin/events/outboxevent/{row.pk}/send-again/",
        "send e-mail again": f"/admin/notifications/emaildelivery/{EmailDelivery.objects.get().pk}/send-again/",
    }


@pytest.mark.parametrize("group", ["support", "operator"])
def test_both_groups_see_all_our_models(client: Client, order: Order, group: str) -> None:
    staff = member(client, group)
    of_events = ("events/outboxevent", "events/deadletter")
    for model in ("orders/order", "notifications/notification", "notifications/emaildelivery", *of_events):
        listed = staff.get(f"/admin/{model}/")
        assert listed.status_code == 200
        first = listed.context["cl"].result_list[0]
        assert staff.get(f"/admin/{model}/{first.pk}/change/").status_code == 200


def test_support_may_only_look(client: Client, order: Order) -> None:
    support = member(client, "support")
    for page in pages(order).values():
        assert support.get(page).status_code == 403
        assert support.post(page, {"confirmed": "yes"}).status_code == 403
    order.refresh_from_db()
    assert order.status == "PENDING"
    assert DeadLetter.objects.get().state == "open"
    assert EmailDelivery.objects.get().state == "failed"


def test_operators_may_act(client: Client, order: Order) -> None:
    operator = member(client, "operator")
    for page in pages(order).values():
        assert operator.get(page).status_code == 200
        assert operator.post(page, {"confirmed": "yes"}).status_code == 302
    order.refresh_from_db()
    assert order.status == "CANCELLED"
    assert DeadLetter.objects.get().state == "dismissed"
    assert EmailDelivery.objects.get().state == "pending"


def test_neither_group_sees_the_accounts(client: Client) -> None:
    assert member(client, "operator").get("/admin/auth/user/").status_code == 403
