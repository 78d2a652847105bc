"""The page Sales: who may see it, its totals and its charts in the reader's zone."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from sales.anomalies.models import SalesAnomaly
from sales.dashboard import figures as reading
from sales.dashboard import views
from sales.dashboard.figures import read_totals
from sales.dashboard.periods import LENGTHS, boundaries, labels, same_time_before, today
from sales.intervals import UNITS, Unit
from sales.models import Generations, SalesBucket
from sales.series import Sum

SEOUL = ZoneInfo("Asia/Seoul")
BERLIN = ZoneInfo("Europe/Berlin")
KATHMANDU = ZoneInfo("Asia/Kathmandu")
NOW = datetime(2026, 3, 10, 6, 30, 20, tzinfo=UTC)
"""The current time in these tests: 15:30 in Seoul."""

State = Callable[..., Any]


@pytest.fixture
def staff(db: None, client: Client) -> Client:
    user = User.objects.create_user("manager", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_salesbucket"))
    client.force_login(user)
    client.cookies["timezone"] = "Asia/Seoul"
    return client


@pytest.fixture
def state(staff: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setattr(views, "database_now", lambda: NOW)

    def state(interval: str = "hour", language: str = "en") -> Any:
        answer = staff.get("/admin/sales/state", {"interval": interval}, headers={"accept-language": language})
        assert answer.status_code == 200, answer.content
        return answer.json()

    return state  # type: ignore[return-value]


def sell(
    minute: datetime, count: int, *, event_type: str = "ORDER_CREATED", price: Decimal | int = 100, partition: int = 0
) -> None:
    SalesBucket.objects.create(
        generation=0, minute=minute, event_type=event_type, partition=partition, count=count, amount=count * price
    )


@pytest.mark.parametrize("path", ["/admin/sales/", "/admin/sales/state"])
def test_page_needs_its_permission(db: None, client: Client, path: str) -> None:
    assert client.get(path).status_code == 302
    client.force_login(User.objects.create_user("support", is_staff=True))
    assert client.get(path).status_code == 403
    permission = Permission.objects.get(codename="view_salesbucket")
    client.force_login(User.objects.create_user("customer"))
    assert client.get(path).status_code == 302
    manager = User.objects.create_user("manager", is_staff=True)
    manager.user_permissions.add(permission)
    client.force_login(manager)
    assert client.get(path).status_code == 200


def test_sidebar_offers_the_page_to_those_who_may_see_it(admin_client: Client, client: Client) -> None:
    assert 'href="/admin/sales/"' in admin_client.get("/admin/").content.decode()
    client.force_login(User.objects.create_user("support", is_staff=True))
    assert 'href="/admin/sales/"' not in client.get("/admin/").content.decode()


def test_totals_are_those_of_the_readers_day(state: State) -> None:
    """In Seoul the day begins at 15:00 UTC. Yesterday counts up to the same time of day."""
    midnight = datetime(2026, 3, 9, 15, tzinfo=UTC)
    sell(midnight, 1)
    sell(midnight - timedelta(minutes=1), 5)
    sell(NOW.replace(second=0), 2, partition=2)
    sell(NOW.replace(second=0) - timedelta(days=1), 7)
    sell(NOW.replace(second=0) - timedelta(days=1, minutes=1), 2)
    sell(midnight - timedelta(days=1), 4, event_type="ORDER_PAID")
    sell(midnight - timedelta(days=1, minutes=1), 100)
    cards = state()["cards"]
    assert cards["created"] == {
        "figure": "300원",
        "orders": "3 orders",
        "yesterday": "200원, 2 orders",
        "change": "+50 %",
    }
    assert cards["paid"] == {"figure": "0원", "orders": "0 orders", "yesterday": "400원, 4 orders", "change": "−100 %"}
    assert cards["cancelled"]["change"] == ""


@pytest.mark.parametrize("unit", UNITS)
def test_chart_has_all_intervals_and_sums_them(state: State, unit: Unit) -> None:
    sell(NOW.replace(second=0), 2)
    sell(NOW.replace(second=0), 3, partition=1)
    sell(NOW.replace(second=0), 1, event_type="ORDER_CANCELLED")
    shown = state(unit)
    assert len(shown["labels"]) == len(shown["table"]) == LENGTHS[unit]
    assert {name: (len(counts), counts[-1]) for name, counts in shown["counts"].items()} == {
        "created": (LENGTHS[unit], 5),
        "paid": (LENGTHS[unit], 0),
        "cancelled": (LENGTHS[unit], 1),
    }
    assert shown["amounts"]["now"][-1] == 500
    assert sum(shown["amounts"]["now"]) == 500
    assert sum(shown["amounts"]["earlier"]) == 0


@pytest.mark.parametrize(("unit", "days"), [("minute", 1), ("hour", 1), ("day", 7)])
def test_earlier_sales_stand_below_those_of_now(state: State, unit: Unit, days: int) -> None:
    sell(NOW.replace(second=0) - timedelta(days=days), 9)
    assert state(unit)["amounts"]["earlier"][-1] == 900


def test_interval_in_progress_is_compared_with_the_same_part(state: State) -> None:
    sell(NOW.replace(second=0) - timedelta(days=7), 9)
    sell(NOW.replace(second=0) - timedelta(days=7, minutes=-1), 100)
    assert state("day")["amounts"]["earlier"][-1] == 900


def test_page_without_any_sales_shows_zeros(state: State, staff: Client) -> None:
    shown = state()
    assert set(shown["amounts"]["now"]) == {0.0}
    assert shown["anomalies"] == []
    assert shown["texts"]["counts"] == "Together 0 created, 0 paid, 0 cancelled."
    assert staff.get("/admin/sales/").status_code == 200


def test_anomaly_is_marked_where_it_is(state: State, staff: Client) -> None:
    SalesAnomaly.objects.create(
        rule="SURGE",
        started_at=datetime(2026, 3, 10, 4, 45, tzinfo=UTC),
        ended_at=datetime(2026, 3, 10, 5, 15, tzinfo=UTC),
        observed=Decimal(1_250_000),
        usual=Decimal(240_000),
        detected_at=NOW,
        event_id="5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
    )
    (found,) = state()["anomalies"]
    assert found["sentence"] == "1,250,000원; usual at this time: 240,000원"
    assert (found["first"], found["last"]) == (LENGTHS["hour"] - 3, LENGTHS["hour"] - 2)
    assert "13:45:00 KST" in found["when"]
    assert found["address"] == "", "It is a link only for those who may view the row"
    user = User.objects.get(username="manager")
    user.user_permissions.add(Permission.objects.get(codename="view_salesanomaly"))
    (linked,) = state()["anomalies"]
    assert staff.get(linked["address"]).status_code == 200
    assert state("minute")["anomalies"] == []


@pytest.mark.parametrize(
    ("rule", "observed", "usual", "text"),
    [
        ("SURGE", "1234.5", "200", "1,234.50원; usual at this time: 200원"),
        ("CANCELLATIONS", "0.8", "0.0812", "80 % of the new orders; usual at this time: 8 % of the new orders"),
        ("SILENCE", "0", "41", "0 orders; usual at this time: 41 orders"),
        ("SILENCE", "0", "1", "0 orders; usual at this time: 1 order"),
    ],
)
def test_anomaly_is_told_in_its_unit(state: State, rule: str, observed: str, usual: str, text: str) -> None:
    SalesAnomaly.objects.create(
        rule=rule,
        started_at=NOW - timedelta(hours=2),
        ended_at=NOW - timedelta(hours=1),
        observed=Decimal(observed),
        usual=Decimal(usual),
        detected_at=NOW,
        event_id="5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
    )
    assert state()["anomalies"][0]["sentence"] == text


def test_page_speaks_korean(state: State, staff: Client) -> None:
    assert state(language="ko")["cards"]["created"]["orders"] == "주문 0건"
    page = staff.get("/admin/sales/", headers={"accept-language": "ko"}).content.decode()
    assert "어제 이 시각까지" in page


@pytest.mark.parametrize("interval", ["", "week", "hour' OR 1=1"])
def test_unknown_interval_shows_hours(state: State, interval: str) -> None:
    assert len(state(interval)["labels"]) == LENGTHS["hour"]


def test_amounts_of_any_size_are_shown_exactly(state: State) -> None:
    sell(NOW.replace(second=0), 1, price=Decimal("99999999999999999999999999.99"))
    sell(NOW.replace(second=0), 1, price=Decimal("-0.01"), partition=1)
    sell(NOW.replace(second=0) - timedelta(hours=1), 1, price=Decimal("99999999999999999999999999.99"))
    shown = state()
    assert shown["cards"]["created"]["figure"] == "199,999,999,999,999,999,999,999,999.97원"
    assert "Together 199,999,999,999,999,999,999,999,999.97원, and" in shown["texts"]["amounts"]


def test_figures_come_from_the_live_generation(state: State) -> None:
    Generations.objects.update_or_create(id=1, defaults={"live": 1, "building": 2, "latest": 2})
    sell(NOW.replace(second=0), 4)
    SalesBucket.objects.update(generation=2)
    assert state()["cards"]["created"]["orders"] == "0 orders"
    Generations.objects.update(live=2, building=None)
    assert state()["cards"]["created"]["orders"] == "4 orders"


def test_slow_query_is_given_up(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "QUERY_TIMEOUT_MS", 50)
    monkeypatch.setattr(
        reading, "SUMS", "SELECT 1, 'ORDER_CREATED', 0, 0 FROM pg_sleep(5) WHERE %(boundaries)s IS NOT NULL"
    )
    answer = staff.get("/admin/sales/state")
    assert (answer.status_code, "statement timeout" in answer.json()["error"]) == (503, True)
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() != ("50ms",), "The connection keeps its own limit"


@pytest.mark.parametrize("unit", UNITS)
def test_number_of_queries_is_fixed(
    staff: Client, django_assert_num_queries: DjangoAssertNumQueries, unit: Unit
) -> None:
    with django_assert_num_queries(7):
        reading.read_figures(NOW, unit=unit, zone=SEOUL)


def test_days_of_a_zone_with_summer_time_have_23_and_25_hours() -> None:
    spring = boundaries(datetime(2026, 3, 30, 12, tzinfo=UTC), unit="day", zone=BERLIN)
    lengths = {end - start for start, end in pairwise(spring)}
    assert lengths == {timedelta(hours=24), timedelta(hours=23)}
    assert len(spring) == LENGTHS["day"] + 1


@pytest.mark.parametrize(
    ("now", "hour_a_week_before"),
    [(datetime(2026, 3, 30, 12, tzinfo=UTC), 13), (datetime(2026, 10, 28, 12, tzinfo=UTC), 11)],
    ids=["spring", "autumn"],
)
def test_a_day_in_progress_is_compared_up_to_the_same_time(now: datetime, hour_a_week_before: int) -> None:
    before = now.replace(hour=hour_a_week_before) - timedelta(days=7)
    assert same_time_before(now, unit="day", zone=BERLIN) == before
    assert same_time_before(now, unit="hour", zone=BERLIN) == now - timedelta(days=1)


@pytest.mark.parametrize("zone", [UTC, SEOUL, BERLIN, KATHMANDU])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("now", [NOW, datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)])
def test_boundaries_ascend_and_contain_now(now: datetime, unit: Unit, zone: ZoneInfo) -> None:
    limits = boundaries(now, unit=unit, zone=zone)
    assert limits == sorted(set(limits))
    assert limits[-2] <= now < limits[-1]
    assert len(labels(limits[:-1], unit=unit, zone=zone)) == LENGTHS[unit]
    assert list(today(now, zone)) == sorted(today(now, zone))


def test_hours_of_a_zone_with_half_hours_begin_when_its_own_do() -> None:
    limits = boundaries(NOW, unit="hour", zone=KATHMANDU)
    assert {one.minute for one in limits} == {15}
    assert labels(limits[-2:-1], unit="hour", zone=KATHMANDU) == ["12:00"]


def test_totals_between_limits_leave_out_what_is_outside(db: None) -> None:
    limits = [NOW.replace(second=0) + timedelta(minutes=number) for number in (0, 2, 3)]
    for number in range(-1, 5):
        sell(limits[0] + timedelta(minutes=number), 10**number if number > 0 else 1)
    assert [one.created for one in read_totals(limits)] == [Sum(11, Decimal(1100)), Sum(100, Decimal(10_000))]
