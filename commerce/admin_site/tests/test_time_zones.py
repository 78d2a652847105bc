"""Admin shows times in the user's time zone, which a cookie names."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from commerce.models import LagReading
from commerce.operations.lag_history import read_history
from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from orders.models import Order
from orders.services import Line, place_order
from testkit.factories import NotificationFactory, kafka_record

pytestmark = pytest.mark.django_db

MOMENT = datetime(2025, 1, 31, 20, 15, 30, 123000, tzinfo=UTC)
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
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
        title = 'datetime="2025-01-31T20:15:30.123Z" title="2025-01-31 20:15:30.123 UTC"'
        assert f"<time {title}>{shown.format(milliseconds)}</time>" in answer.content.decode()
    assert timezone.get_current_timezone_name() == "UTC"


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_time_has_its_zone_and_utc_as_title(admin_client: Client, order: Order, language: str) -> None:
    """The test reads the lists and pages of four models, and the history page of a dead letter."""
    admin_client.cookies["timezone"] = "Asia/Seoul"
    record = kafka_record(b"garbage")
    record_dead_letter(record=record, error=Poison("bad"), group="group")
    letter = DeadLetter.objects.get()
    admin_client.post(f"/admin/events/deadletter/{letter.pk}/replay/", {"confirmed": "yes"})
    published = {"published_at": MOMENT, "published_path": "fast", "published_partition": 0, "published_offset": 1}
    OutboxEvent.objects.update(**published)
    notification = NotificationFactory.create(order_id=order.pk, read_at=MOMENT)
    rows = {"orders/order": order, "events/deadletter": letter, "notifications/notification": notification}
    rows |= {"events/outboxevent": OutboxEvent.objects.earliest("pk")}
    for model, row in rows.items():
        pages = [f"{model}/", f"{model}/{row.pk}/change/"]
        pages += [f"{model}/{row.pk}/history/"] if row == letter else []
        for page in pages:
            text = admin_client.get(f"/admin/{page}", headers={"accept-language": language}).content.decode()
            shown = re.sub(
                rf'<time datetime="[^"]*Z" title="{TIME}\.\d{{3}} UTC">{TIME}(\.\d{{3}})? KST</time>', "", text
            )
            assert shown != text
            assert re.findall(TIME, shown) == []


def test_the_live_times_of_the_pipeline_page_have_the_same_form(admin_client: Client) -> None:
    admin_client.cookies["timezone"] = "Asia/Seoul"
    LagReading.objects.create(slot=read_history().slots[-2], lag={"notification-consumer-group": 7})
    state = admin_client.get("/admin/pipeline/state").json()
    assert re.fullmatch(rf'<time datetime="[^"]*Z" title="{TIME}\.\d{{3}} UTC">{TIME} KST</time>', state["at"])
    assert re.search(r"at \d\d:\d\d:\d\d KST\.", state["texts"]["lag"])


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
