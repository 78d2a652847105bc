"""Admin shows times in the user's time zone, which a cookie names."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from events.models import OutboxEvent
from orders.models import Order
from orders.services import Line, place_order

pytestmark = pytest.mark.django_db

MOMENT = datetime(2025, 1, 31, 20, 15, 30, 123000, tzinfo=UTC)
EARLIER = datetime(2024, 12, 31, 14, 59, 59, tzinfo=UTC)


@pytest.fixture
def order(user: User) -> Order:
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    Order.objects.filter(pk=order.pk).update(created_at=MOMENT)
    OutboxEvent.objects.filter(stream=order.stream).update(created_at=MOMENT)
    return order


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("Asia/Seoul", "2025-02-01 05:15:30{} KST"),
        ("Asia%2FSeoul", "2025-02-01 05:15:30{} KST"),
        ("America/New_York", "2025-01-31 15:15:30{} EST"),
        ("Asia/Kathmandu", "2025-02-01 02:00:30{} +0545"),
        *((bad, "2025-01-31 20:15:30{} UTC") for bad in (None, "", "Nowhere", "../../etc/passwd", "/etc", "x" * 999)),
    ],
)
def test_times_are_in_the_users_zone(
    admin_client: Client, order: Order, zone: str | None, shown: str, language: str
) -> None:
    if zone is not None:
        admin_client.cookies["timezone"] = zone
    for page, milliseconds in (("", ""), (f"{order.pk}/change/", ""), (f"{order.pk}/change/", ".123")):
        answer = admin_client.get(f"/admin/orders/order/{page}", headers={"accept-language": language})
        assert shown.format(milliseconds) in answer.content.decode()
    assert timezone.get_current_timezone_name() == "UTC"


def test_the_api_stays_in_utc(admin_client: Client, api: Client, order: Order) -> None:
    api.cookies["timezone"] = "Asia/Seoul"
    assert api.get(f"/api/orders/{order.pk}").json()["createdAt"] == "2025-01-31T20:15:30.123Z"


def test_the_periods_of_a_list_follow_the_zone(admin_client: Client, order: Order) -> None:
    admin_client.cookies["timezone"] = "Asia/Seoul"
    february = "/admin/orders/order/?created_at__year=2025&created_at__month=2"
    assert f"/{order.pk}/change/" in admin_client.get(february).content.decode()
    assert f"/{order.pk}/change/" not in admin_client.get(february[:-1] + "1").content.decode()
    assert "created_at__day=1&amp;created_at__month=2" in admin_client.get(february).content.decode()


@pytest.mark.parametrize(("zone", "year"), [("Asia/Seoul", 2024), ("Pacific/Kiritimati", 2025)])
def test_a_year_begins_by_the_users_zone(admin_client: Client, order: Order, zone: str, year: int) -> None:
    Order.objects.filter(pk=order.pk).update(created_at=EARLIER)
    admin_client.cookies["timezone"] = zone
    for asked in (2024, 2025):
        text = admin_client.get(f"/admin/orders/order/?created_at__year={asked}").content.decode()
        assert (f"/{order.pk}/change/" in text) == (asked == year)


@pytest.mark.parametrize("page", ["login/", "", "pipeline/", "orders/order/"])
def test_every_page_loads_the_time_zone_script(admin_client: Client, page: str) -> None:
    client = Client() if page == "login/" else admin_client
    assert "commerce/timezone.js" in client.get(f"/admin/{page}").content.decode()
