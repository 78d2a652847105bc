"""A second group on the orders' topic: an event is needed until both groups have handled it."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from commerce.operations.prune import prune
from events.consuming.dead_letters import record_dead_letter
from events.models import OutboxEvent
from events.subscriptions import subscriptions
from events.testing import deliver
from events.troubles import Poison
from events.wire.timestamps import now
from notifications.subscriptions import NOTIFICATIONS
from orders.events import ORDER_EVENTS
from orders.models import Order
from orders.services import Line, place_order
from sales.subscriptions import SALES
from testkit.factories import kafka_record
from testkit.subscriptions import missing_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def order(user: User) -> Order:
    """Return an order whose event was published 40 days ago."""
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    OutboxEvent.objects.update(
        published_at=now() - timedelta(days=40), published_path="fast", published_partition=0, published_offset=7
    )
    return order


def value_of(order: Order) -> bytes:
    return bytes(OutboxEvent.objects.get(stream=order.stream).value or b"")


def test_both_groups_are_registered() -> None:
    assert [one.group for one in subscriptions(ORDER_EVENTS.name)] == [NOTIFICATIONS.group, SALES.group]


@pytest.mark.parametrize("first", [NOTIFICATIONS, SALES], ids=["notifications", "sales"])
def test_a_row_is_pruned_when_both_groups_handled_it(order: Order, first: object) -> None:
    second = SALES if first is NOTIFICATIONS else NOTIFICATIONS
    value = value_of(order)
    assert deliver(first, [value]) == []
    assert sum(prune(published_before=now())) == 0
    assert deliver(second, [value]) == []
    assert sum(prune(published_before=now())) == 1


def test_an_event_that_only_sales_missed_is_found(order: Order) -> None:
    deliver(NOTIFICATIONS, [value_of(order)])
    assert missing_of(NOTIFICATIONS).events == set()
    assert missing_of(SALES).events == {order.event_id(1)}
    deliver(SALES, [value_of(order)])
    assert missing_of(SALES).events == set()


def test_the_api_shows_notifications_and_admin_both(api: APIClient, admin_client: Client, order: Order) -> None:
    deliver(SALES, [value_of(order)])
    (entry,) = api.get(f"/api/orders/{order.pk}/events").json()
    assert entry["state"] == "PUBLISHED"
    page = admin_client.get(f"/admin/orders/order/{order.pk}/change/").content.decode()
    assert "sales" in page


def test_a_letter_of_sales_does_not_make_an_event_dead(api: APIClient, order: Order) -> None:
    record_dead_letter(record=kafka_record(value_of(order)), error=Poison("no event"), group=SALES.group)
    (entry,) = api.get(f"/api/orders/{order.pk}/events").json()
    assert entry["state"] == "PUBLISHED"
    assert sum(prune(published_before=now())) == 0
