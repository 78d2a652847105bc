"""`GET /api/sales` and `GET /api/me/summary`."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient

from events.testing import deliver
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, encode
from sales.models import Generations, SalesBucket
from sales.serializers import MAX_INTERVALS
from sales.subscriptions import SALES
from sales.tests.conftest import Sales
from testkit.factories import OrderEventFactory, UserFactory

pytestmark = pytest.mark.django_db

ZERO = {
    "created": 0,
    "createdAmount": 0.0,
    "paid": 0,
    "paidAmount": 0.0,
    "cancelled": 0,
    "cancelledAmount": 0.0,
}


def add(event_type: str, at: str, amount: str = "100.00", **fields: Any) -> None:
    event = OrderEventFactory.build(
        event_type=event_type, timestamp=datetime.fromisoformat(at), total_amount=Decimal(amount), **fields
    )
    assert deliver(SALES, [encode(event)]) == []


def test_each_interval_has_its_own_sums(sales: Sales) -> None:
    add(ORDER_CREATED, "2025-01-30T10:00:00.000Z", "1.10")
    add(ORDER_CREATED, "2025-01-30T10:00:59.999Z", "2.20")
    add(ORDER_PAID, "2025-01-30T10:01:00.000Z", "1.10")
    add(ORDER_CANCELLED, "2025-01-30T10:03:30.000Z", "0.00")
    assert sales("2025-01-30T10:00:00Z", "2025-01-30T10:04:00Z") == [
        ZERO | {"from": "2025-01-30T10:00:00.000Z", "created": 2, "createdAmount": 3.3},
        ZERO | {"from": "2025-01-30T10:01:00.000Z", "paid": 1, "paidAmount": 1.1},
        ZERO | {"from": "2025-01-30T10:02:00.000Z"},
        ZERO | {"from": "2025-01-30T10:03:00.000Z", "cancelled": 1},
    ]


@pytest.mark.parametrize(
    ("interval", "starts"),
    [
        ("minute", ["2025-01-30T10:15:00.000Z", "2025-01-30T10:16:00.000Z"]),
        ("hour", ["2025-01-30T10:00:00.000Z"]),
        ("day", ["2025-01-30T00:00:00.000Z"]),
    ],
)
def test_intervals_touched_by_the_time_are_complete(sales: Sales, interval: str, starts: list[str]) -> None:
    add(ORDER_CREATED, starts[0])
    found = sales("2025-01-30T10:15:30.500Z", "2025-01-30T10:16:00.001Z", interval)
    assert [one["from"] for one in found] == starts
    assert found[0]["created"] == 1


def test_to_itself_is_not_included(sales: Sales) -> None:
    found = sales("2025-01-30T10:00:00Z", "2025-01-30T11:00:00Z", "hour")
    assert [one["from"] for one in found] == ["2025-01-30T10:00:00.000Z"]


def test_offsets_are_understood(sales: Sales) -> None:
    found = sales("2025-01-31T00:00:00+09:00", "2025-01-31T00:02:00+09:00")
    assert [one["from"] for one in found] == ["2025-01-30T15:00:00.000Z", "2025-01-30T15:01:00.000Z"]


def test_first_and_last_minute_of_all_years(sales: Sales) -> None:
    add(ORDER_CREATED, "0001-01-01T00:00:00Z", "1.00")
    add(ORDER_PAID, "9999-12-31T23:59:59.999Z", "2.00")
    (first,) = sales("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.001Z")
    (last,) = sales("9999-12-31T23:59:59.998Z", "9999-12-31T23:59:59.999Z", "day")
    assert (first["from"], first["createdAmount"]) == ("0001-01-01T00:00:00.000Z", 1.0)
    assert (last["from"], last["paidAmount"]) == ("9999-12-31T00:00:00.000Z", 2.0)


def test_sums_of_huge_amounts_are_exact(staff: APIClient) -> None:
    huge = "99999999999999999999999999.99"
    for _ in range(3):
        add(ORDER_CREATED, "2025-01-30T10:00:00Z", huge)
    add(ORDER_CREATED, "2025-01-30T10:00:00Z", "-0.01")
    query = {"from": "2025-01-30T10:00:00Z", "to": "2025-01-30T10:01:00Z", "interval": "minute"}
    assert b'"createdAmount":299999999999999999999999999.96,' in staff.get("/api/sales", query).content


@pytest.mark.parametrize(
    ("interval", "number", "length_s"), [("minute", 60, 60), ("hour", 24, 3600), ("day", 30, 86400)]
)
def test_without_a_time_the_latest_intervals_come(staff: APIClient, interval: str, number: int, length_s: int) -> None:
    before = datetime.now(UTC)
    found = staff.get("/api/sales", {"interval": interval}).json()
    after = datetime.now(UTC)
    assert len(found) == number
    last = datetime.fromisoformat(found[-1]["from"])
    assert last <= after
    assert before < last + timedelta(seconds=length_s)


def test_without_anything_the_latest_hours_come(staff: APIClient) -> None:
    assert len(staff.get("/api/sales").json()) == 24


def test_with_to_alone_the_time_before_it_comes(staff: APIClient) -> None:
    found = staff.get("/api/sales", {"to": "2025-01-30T10:00:00Z"}).json()
    assert (found[0]["from"], found[-1]["from"]) == ("2025-01-29T10:00:00.000Z", "2025-01-30T09:00:00.000Z")


@pytest.mark.parametrize("to", ["0001-01-01T00:00:00.001Z", "0001-01-01T05:00:00Z", "0001-01-02T00:00:00Z"])
def test_default_time_ends_at_the_first_year(staff: APIClient, to: str) -> None:
    found = staff.get("/api/sales", {"to": to}).json()
    assert found[0]["from"] == "0001-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("query", "pointer", "part"),
    [
        ({"from": "2025-01-30T10:00:00"}, "/from", "RFC 3339"),
        ({"from": "yesterday"}, "/from", "RFC 3339"),
        ({"from": ""}, "/from", "RFC 3339"),
        ({"to": "2025-01-30"}, "/to", "RFC 3339"),
        ({"to": "2025-01-30T10:00:60Z"}, "/to", "second 60"),
        ({"to": "10000-01-01T00:00:00Z"}, "/to", "RFC 3339"),
        ({"to": "0000-01-01T00:00:00Z"}, "/to", "RFC 3339"),
        ({"from": "0001-01-01T00:00:00+09:00"}, "/from", "RFC 3339"),
        ({"to": "1" * 5000}, "/to", "RFC 3339"),
        ({"to": "\x00"}, "/to", "RFC 3339"),
        ({"interval": "week"}, "/interval", "not a valid choice"),
        ({"interval": ""}, "/interval", "not a valid choice"),
        ({"interval": "MINUTE"}, "/interval", "not a valid choice"),
        ({"from": "2025-01-30T10:00:00Z", "to": "2025-01-30T10:00:00Z"}, "/to", "before `to`"),
        ({"from": "2025-01-30T10:00:01Z", "to": "2025-01-30T10:00:00Z"}, "/to", "before `to`"),
        ({"from": "9999-01-01T00:00:00Z"}, "/from", "before `to`"),
        ({"to": "0001-01-01T00:00:00Z"}, "/to", "before `to`"),
        ({"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z"}, "/interval", "at most 1500"),
    ],
)
def test_other_queries_are_refused(staff: APIClient, query: dict[str, str], pointer: str, part: str) -> None:
    answer = staff.get("/api/sales", query)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert part in error["detail"]


def test_one_interval_more_than_the_limit_is_refused(staff: APIClient) -> None:
    start = datetime(2025, 1, 30, tzinfo=UTC)
    end = start + timedelta(minutes=MAX_INTERVALS)
    query = {"from": start.isoformat(), "to": end.isoformat(), "interval": "minute"}
    assert len(staff.get("/api/sales", query).json()) == MAX_INTERVALS
    answer = staff.get("/api/sales", query | {"to": (end + timedelta(milliseconds=1)).isoformat()})
    assert answer.status_code == 400
    assert "1501 minutes" in answer.json()["errors"][0]["detail"]


def test_only_permitted_staff_sees_the_sales(anonymous: APIClient) -> None:
    permission = Permission.objects.get(codename="view_salesbucket")
    customer, bare, permitted = UserFactory.create(), UserFactory.create(is_staff=True), UserFactory.create()
    permitted.user_permissions.add(permission)
    admin = UserFactory.create(is_staff=True, is_superuser=True)
    answers = {}
    for name, user in {"customer": customer, "bare staff": bare, "no staff": permitted, "admin": admin}.items():
        client = APIClient()
        client.force_authenticate(User.objects.get(pk=user.pk))
        answers[name] = client.get("/api/sales").status_code
    assert answers == {"customer": 403, "bare staff": 403, "no staff": 403, "admin": 200}
    assert anonymous.get("/api/sales").status_code == 401
    assert anonymous.get("/api/me/summary").status_code == 401


def test_readers_see_the_live_generation_only(sales: Sales) -> None:
    Generations.objects.create(live=3, building=4, latest=4)
    for generation in (2, 3, 4):
        SalesBucket.objects.create(
            generation=generation,
            minute=datetime(2025, 1, 30, 10, tzinfo=UTC),
            event_type=ORDER_CREATED,
            partition=0,
            count=generation,
            amount=generation,
        )
    assert sales("2025-01-30T10:00:00Z", "2025-01-30T10:01:00Z")[0]["created"] == 3


def test_summary_counts_the_callers_orders(api: APIClient, user: User) -> None:
    mine: dict[str, Any] = {"user_id": user.pk}
    add(ORDER_CREATED, "2025-01-30T10:00:00.500Z", "10.00", **mine)
    add(ORDER_CREATED, "2025-01-29T10:00:00Z", "5.00", **mine)
    add(ORDER_PAID, "2025-01-30T10:01:00Z", "10.00", **mine)
    add(ORDER_CANCELLED, "2025-01-31T10:01:00Z", "10.00", **mine)
    add(ORDER_CREATED, "2025-02-01T10:00:00Z", "99.00", user_id=user.pk + 1)
    assert api.get("/api/me/summary").json() == {
        "orders": 2,
        "paid": 1,
        "cancelled": 1,
        "amountPaid": 10.0,
        "lastOrderAt": "2025-01-30T10:00:00.500Z",
    }


def test_summary_of_a_new_customer_is_zero(api: APIClient) -> None:
    answer = api.get("/api/me/summary")
    assert answer.content == b'{"orders":0,"paid":0,"cancelled":0,"amountPaid":0.00,"lastOrderAt":null}'


def test_empty_intervals_have_two_decimals(staff: APIClient) -> None:
    answer = staff.get("/api/sales", {"from": "2025-01-30T10:00:00Z", "to": "2025-01-30T10:01:00Z"})
    assert b'"createdAmount":0.00,' in answer.content
