"""Orders in admin are read-only. Actions change an order together with its event."""

import html
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
from testkit.factories import OrderFactory, UserFactory

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
    assert "1 order was marked as paid." in text
    assert f"1 is left as it is: cancelled already (Order {cancelled.pk})." in text
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


# --- Questions ----------------------------------------------------------------------------------


def question(client: Client, orders: list[Order], action: str = "pay") -> str:
    """Choose `action` for these orders in admin's list, and return the HTML of the confirmation page."""
    posted = {"action": f"{action}_selected", "_selected_action": [order.pk for order in orders]}
    return html.unescape(client.post(ORDERS, posted).content.decode())


def with_status(user: User, *statuses: str) -> list[Order]:
    """Create an order of `user` for each status, without events, and return the orders."""
    return [OrderFactory.create(user=user, status=status, total_amount=Decimal("1234567.50")) for status in statuses]


def test_a_question_says_whom_it_is_about(admin_client: Client, user: User) -> None:
    (order,) = with_status(user, "PENDING")
    for text in (question(admin_client, [order]), admin_client.get(f"{ORDERS}{order.pk}/pay/").content.decode()):
        assert "Mark this order as paid? Its customer will be notified." in text
        assert f"<li>Order {order.pk} · {user.username} · {won(order.total_amount)} · Pending</li>" in text
        assert "data-outcome" not in text


def test_a_question_says_what_will_happen(admin_client: Client, user: User) -> None:
    orders = with_status(user, *["PENDING"] * 3, *["PAID"] * 5, *["CANCELLED"] * 4)
    text = question(admin_client, orders)
    assert "Mark these 3 orders as paid? Their customers will be notified." in text
    assert "3 can be paid, 9 are skipped: paid already (5), cancelled already (4)." in text
    assert text.count(f"· {user.username} ·") == 3
    assert "8 can be cancelled, 4 are skipped: cancelled already." in question(admin_client, orders, "cancel")


def test_a_question_is_in_the_users_language(admin_client: Client, user: User) -> None:
    orders = with_status(user, "PENDING", "PAID", "PAID")
    posted = {"action": "pay_selected", "_selected_action": [order.pk for order in orders]}
    text = admin_client.post(ORDERS, posted, headers={"accept-language": "ko"}).content.decode()
    assert "주문 1건을 결제 완료로 바꿀까요?" in text
    assert "1건을 결제할 수 있고, 2건은 건너뜁니다: 이미 결제됨." in text


def test_a_question_names_at_most_a_dozen_orders(admin_client: Client, user: User) -> None:
    text = question(admin_client, with_status(user, *["PENDING"] * 14))
    assert text.count(f"· {user.username} ·") == 12
    assert "<li>and 2 more</li>" in text


def test_a_question_takes_no_more_queries_for_more_orders(admin_client: Client) -> None:
    def queries(orders: int) -> int:
        chosen = [order for _ in range(orders) for order in with_status(UserFactory.create(), "PENDING", "PAID")]
        with CaptureQueriesContext(connection) as captured:
            question(admin_client, chosen)
        return len(captured)

    assert queries(1) == queries(20)


def test_what_cannot_be_done_has_no_button(admin_client: Client, user: User) -> None:
    paid, cancelled = with_status(user, "PAID", "CANCELLED")
    text = question(admin_client, [paid, cancelled])
    assert "2 are skipped: paid already (1), cancelled already (1)." in text
    assert 'name="confirmed"' not in text
    alone = admin_client.get(f"{ORDERS}{cancelled.pk}/cancel/").content.decode()
    assert "This cannot be done: cancelled already." in alone
    assert 'name="confirmed"' not in alone


@pytest.mark.parametrize(
    ("status", "offered"), [("PENDING", {"pay", "cancel"}), ("PAID", {"cancel"}), ("CANCELLED", set())]
)
def test_an_order_offers_what_can_be_done(admin_client: Client, user: User, status: str, offered: set[str]) -> None:
    (order,) = with_status(user, status)
    text = admin_client.get(f"{ORDERS}{order.pk}/change/").content.decode()
    assert {action for action in ("pay", "cancel") if f'href="{ORDERS}{order.pk}/{action}/"' in text} == offered


def test_only_what_cannot_be_undone_has_a_red_button(admin_client: Client, user: User) -> None:
    orders = with_status(user, "PENDING")
    assert "bg-red-600" in question(admin_client, orders, "cancel")
    assert "bg-red-600" not in question(admin_client, orders, "pay")


def test_a_name_of_a_customer_is_no_markup(admin_client: Client) -> None:
    orders = with_status(UserFactory.create(username="<b>mina</b>"), "PENDING")
    text = admin_client.get(f"{ORDERS}{orders[0].pk}/pay/").content.decode()
    assert "&lt;b&gt;mina" in text
    assert "<b>mina" not in text
