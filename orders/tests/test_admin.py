"""Orders in admin are read-only. Actions change an order together with its event."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events.models import OutboxEvent
from events.outbox.publisher import RecordingPublisher
from orders.models import Order
from orders.money import won
from orders.services import Line, place_order
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

ORDERS = "/admin/orders/order/"


def order_of(user: User) -> Order:
    return place_order(user_id=user.pk, lines=[Line(4711, 2, Decimal("100.00"))]).order


@pytest.fixture
def order(user: User) -> Order:
    return order_of(user)


@pytest.mark.parametrize(("action", "status"), [("pay", "PAID"), ("cancel", "CANCELLED")])
def test_an_action_changes_the_order_and_publishes_its_event(
    admin_client: Client,
    order: Order,
    publisher: RecordingPublisher,
    action: str,
    status: str,
    django_capture_on_commit_callbacks: Any,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        admin_client.post(f"{ORDERS}{order.pk}/{action}/", {"confirmed": "yes"})
    order.refresh_from_db()
    event = OutboxEvent.objects.get(stream=order.stream, sequence=2)
    assert (order.status, event.event_type) == (status, f"ORDER_{status}")
    assert publisher.published == [event.message]
    assert str(event.event_id) in LogEntry.objects.get().change_message


def test_an_action_refuses_forbidden_orders_and_does_the_others(admin_client: Client, user: User) -> None:
    cancelled, pending = order_of(user), order_of(user)
    admin_client.post(f"{ORDERS}{cancelled.pk}/cancel/", {"confirmed": "yes"})
    selected = {"action": "pay_selected", "_selected_action": [cancelled.pk, pending.pk], "confirmed": "yes"}
    text = admin_client.post(ORDERS, selected, follow=True).content.decode()
    assert "1 order was paid." in text
    assert f"Order {cancelled.pk} is CANCELLED and cannot become PAID." in text
    assert Order.objects.get(pk=pending.pk).status == "PAID"


def test_order_page_shows_the_items(admin_client: Client, order: Order) -> None:
    assert "4711" in admin_client.get(f"{ORDERS}{order.pk}/change/").content.decode()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_money_is_written_as_people_write_it(admin_client: Client, user: User, language: str) -> None:
    lines = [Line(1, 3, Decimal("12500.00")), Line(2, 1, Decimal("1999.50")), Line(3, 120, Decimal("4500000.00"))]
    order = place_order(user_id=user.pk, lines=lines).order
    korean = {"accept-language": language}
    amounts = re.compile(r'<span class="money">(.*?)</span>')
    assert amounts.findall(admin_client.get(ORDERS, headers=korean).content.decode()) == ["540,039,499.50원"]
    page = admin_client.get(f"{ORDERS}{order.pk}/change/", headers=korean).content.decode()
    items = ["12,500원", "37,500원", "1,999.50원", "1,999.50원", "4,500,000원", "540,000,000원"]
    assert amounts.findall(page) == ["540,039,499.50원", *items]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.00", "0원"),
        ("0.05", "0.05원"),
        ("999.00", "999원"),
        ("1000.00", "1,000원"),
        ("1000", "1,000원"),
        ("100.10", "100.10원"),
        ("999999999999999999.99", "999,999,999,999,999,999.99원"),
    ],
)
def test_amounts_have_separators_and_the_currency(amount: str, text: str) -> None:
    assert won(Decimal(amount)) == f'<span class="money">{text}</span>'


def test_orders_are_found_by_id_and_user(admin_client: Client, user: User) -> None:
    mine, other = order_of(user), order_of(UserFactory.create())

    def found(text: str) -> list[Order]:
        return list(admin_client.get(ORDERS, {"q": text}).context["cl"].result_list)

    assert found(user.username) == [mine]
    assert mine in found(str(user.pk))
    assert other in found(str(other.pk))
    assert found("9" * 30) == []


def test_date_hierarchy_filters_orders_by_day(admin_client: Client, user: User) -> None:
    days = [datetime(2025, 1, 30, tzinfo=UTC), datetime(2025, 3, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]
    for day in days:
        Order.objects.filter(pk=order_of(user).pk).update(created_at=day)
    years = admin_client.get(ORDERS).content.decode()
    assert "?created_at__year=2025" in years
    assert "?created_at__year=2026" in years
    months = admin_client.get(ORDERS, {"created_at__year": 2025}).content.decode()
    assert "February 2025" in months
    of_day = admin_client.get(ORDERS, {"created_at__year": 2025, "created_at__month": 3, "created_at__day": 2})
    assert [order.created_at for order in of_day.context["cl"].result_list] == [days[1]]


def test_a_longer_list_takes_no_more_queries(admin_client: Client) -> None:
    def queries(orders: int) -> int:
        for _ in range(orders):
            order_of(UserFactory.create())
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(ORDERS).status_code == 200
        return len(captured)

    assert queries(2) == queries(20)
