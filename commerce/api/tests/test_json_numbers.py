"""Numbers of every spelling and size in every request body. None of them causes a server error.

The literals come from the cases `n_number_*`, `i_number_*` and `y_number_*` of https://github.com/nst/JSONTestSuite,
and from the limits of Python's Decimal.
"""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from orders.models import Order
from orders.services import Line, pay_order, place_order
from testkit.factories import NotificationFactory

pytestmark = pytest.mark.django_db

NO_JSON = [
    *("++1234", "+1", "+Inf", "-01", "-1.0.", "-2.", "-NaN", ".-1", ".2e-3", "0.1.2", "0.3e+", "0.3e", "0.e1", "0E+"),
    *("0E", "0e+", "0e", "1.0e+", "1.0e-", "1.0e", "1 000.0", "1eE2", "2.e+3", "2.e-3", "2.e3", "9.e+", "Inf", "NaN"),
    *("\uff11", "1+2", "0x1", "0x42", "Infinity", "0e+-1", "-123.123foo", "-Infinity", "-foo", "- 1", "-012", "-.123"),
    *("-1x", "1ea", "1.", ".123", "1.2a-3", "1.8011670033376514H-308", "012"),
    *(b"123\xe5", b"1e1\xe5", b"0\xe5", b"1e\xe5"),
]
JSON = [
    *("123e65", "0e+1", "0e1", " 4", "-0.000000000000000000000000000000000000000000000000000000000000000000000001"),
    *("20e1", "-0", "-123", "-1", "-0.0", "1E22", "1E-2", "1E+2", "123e45", "123.456e78", "1e-2", "1e+2", "123"),
    *("123.456789", "123.456e-789", "-1e+9999", "1.5e+9999", "-123123e100000", "123123e100000", "123e-10000000"),
    *("-123123123123123123123123123123", "100000000000000000000"),
    *("-237462374673276894279832749832423479823246327846", "9" * 4_300, "-" + "9" * 4_300, "1." + "3" * 10_000),
    *("1e999999999999999999", "1e-999999999999999999", "-1e999999999999999999", "0e999999999999999999"),
]
BEYOND_DECIMAL = [
    "0.4e00669" + "9" * 120,
    *(
        f"{sign}{digits}{exponent}"
        for sign in ("", "-")
        for digits in ("1", "0", "0.1", "123.456")
        for exponent in (
            "e1000000000000000009",
            "e-2000000000000000000",
            "E+99999999999999999999",
            "e-99999999999999999999",
        )
    ),
]
BODIES = [
    "%s",
    "[%s]",
    '{"unknown":%s}',
    '{"username":%s,"password":%s,"email":%s,"refresh":%s,"items":%s}',
    '{"username":"mina","password":"correct horse battery","refresh":"x","email":%s}',
    *(
        '{{"items":[{{"productId":{},"quantity":{},"price":{}}}]}}'.format(*given)
        for given in (("%s", 1, 1), (1, "%s", 1), (1, 1, "%s"), ("%s", "%s", "%s"))
    ),
    '{"items":[{"productId":1,"quantity":1,"price":1,"note":{"a":[%s]}}]}',
]
IDS = {"ids": lambda literal: str(literal)[:40]}


@pytest.fixture(autouse=True)
def _unthrottled(settings: Settings) -> None:
    settings.THROTTLE_RATES = dict.fromkeys(settings.THROTTLE_RATES)


def order_of(user: User) -> Order:
    return place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order


def bodies(literal: str | bytes) -> Iterator[bytes]:
    number = literal.encode() if isinstance(literal, str) else literal
    for body in BODIES:
        yield body.encode().replace(b"%s", number)


@pytest.mark.parametrize("literal", [*NO_JSON, *JSON, *BEYOND_DECIMAL], **IDS)
def test_a_number_in_an_accounts_body_is_refused(anonymous: APIClient, literal: str | bytes) -> None:
    for body in bodies(literal):
        for path in ("/api/auth/register", "/api/auth/token", "/api/auth/token/refresh"):
            answer = anonymous.post(path, body, content_type="application/json")
            # A valid number in an unknown field is ignored. Then name and token are looked up, and do not exist.
            assert answer.status_code in ((400, 401) if literal in JSON else (400,)), (path, body, answer.content)
            assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("literal", [*NO_JSON, *JSON, *BEYOND_DECIMAL], **IDS)
def test_a_number_in_an_order_is_accepted_or_refused(
    api: APIClient, anonymous: APIClient, literal: str | bytes
) -> None:
    for n, body in enumerate(bodies(literal)):
        for key in ({}, {"idempotency-key": f"{n}"}):
            answer = api.post("/api/orders", body, content_type="application/json", headers=key)
            assert answer.status_code in ((201, 400) if literal in JSON else (400,)), (body, answer.content)
        assert anonymous.post("/api/orders", body, content_type="application/json").status_code == 401


@pytest.mark.parametrize("literal", [NO_JSON[0], JSON[0], BEYOND_DECIMAL[0], "1e99999999999999999999"], **IDS)
def test_a_number_in_an_ignored_body_is_ignored(api: APIClient, user: User, literal: str) -> None:
    order, notification = order_of(user), NotificationFactory.create(user_id=user.pk)
    for body in bodies(literal):
        for path in (
            f"/api/orders/{order.pk}/pay",
            f"/api/orders/{order.pk}/cancel",
            f"/api/notifications/{notification.pk}/read",
        ):
            assert api.post(path, body, content_type="application/json").status_code in (200, 409)


LARGEST = {"productId": 2**63 - 1, "quantity": 1_000_000, "price": 9_999_999_999}


@pytest.mark.parametrize("digits", range(1, 61))
@pytest.mark.parametrize("field", LARGEST)
def test_a_field_refuses_more_digits_than_its_limit(api: APIClient, field: str, digits: int) -> None:
    for first in "1", "9":
        whole = first + "0" * (digits - 1)
        fits = int(whole) <= LARGEST[field]
        for literal, is_valid in (
            (whole, fits),
            (f"{whole}.0", fits),
            (f"{whole}.00", fits),
            (f"{whole}.{'0' * digits}", fits),
            (f"{first}e{digits - 1}", fits),
            (f"{first}.{'0' * digits}E+{digits - 1}", fits),
            (f"{whole}{'0' * digits}e-{digits}", fits),
            (f"{whole}.50", fits and field == "price"),
            (f"{whole}.{'3' * (digits + 2)}", False),
            (f"-{whole}", False),
            (f"-{whole}.{'3' * digits}e{digits}", False),
            (f"{first}e-{digits}", field == "price" and digits <= 2),
        ):
            assert_is_judged(api, field, literal, is_valid=is_valid)


def assert_is_judged(api: APIClient, field: str, literal: str, *, is_valid: bool) -> None:
    given = {"productId": "1", "quantity": "1", "price": "1"} | {field: literal}
    item = ",".join(f'"{name}":{value}' for name, value in given.items())
    answer = api.post("/api/orders", f'{{"items":[{{{item}}}]}}', content_type="application/json")
    if is_valid:
        assert answer.status_code == 201, (literal, answer.content)
    else:
        assert answer.status_code == 400, (literal, answer.content)
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"/items/0/{field}"], literal


ODD_QUERY_VALUES = [*JSON, *BEYOND_DECIMAL, *(text for text in NO_JSON if isinstance(text, str)), "", "\0", "x" * 5_000]


@pytest.mark.parametrize("value", [*ODD_QUERY_VALUES, *("9" * digits for digits in range(1, 61))], **IDS)
def test_a_number_in_a_query_is_accepted_or_refused(api: APIClient, value: str) -> None:
    for path, names in (
        ("/api/orders", ("limit", "cursor", "status", "createdAfter", "createdBefore")),
        ("/api/notifications", ("limit", "cursor", "type", "unread")),
    ):
        for name in names:
            assert api.get(path, {name: value}).status_code in ((200, 400) if name == "limit" else (400,)), name


@pytest.mark.parametrize("value", ["0", "9" * 18, "9" * 19, "9" * 60, "9" * 4_300, "9" * 5_000], **IDS)
def test_an_id_of_any_size_is_not_found(api: APIClient, value: str) -> None:
    for path in (f"/api/orders/{value}", f"/api/orders/{value}/events"):
        assert api.get(path).status_code == 404
    for path in (f"/api/orders/{value}/pay", f"/api/orders/{value}/cancel", f"/api/notifications/{value}/read"):
        assert api.post(path).status_code == 404


def test_refused_numbers_leave_no_trace(api: APIClient, user: User) -> None:
    """Refused requests to place an order create none, and leave an earlier, paid order as it is."""
    order = order_of(user)
    pay_order(order_id=order.pk)
    for literal in BEYOND_DECIMAL:
        for body in bodies(literal):
            api.post("/api/orders", body, content_type="application/json")
    assert [(one.pk, one.status) for one in Order.objects.all()] == [(order.pk, Order.Status.PAID)]
