import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.api.client_address import client_address
from commerce.environment import Rate
from commerce.models import RequestCount
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db


def register(**sender: Any) -> Any:
    return APIClient().post("/api/auth/register", {}, format="json", **sender)


@pytest.mark.parametrize("path", ["/api/auth/register", "/api/auth/token"])
def test_an_address_has_sixty_requests_a_minute(anonymous: APIClient, path: str) -> None:
    for _ in range(60):
        assert anonymous.post(path, {}, format="json").status_code == 400
    throttled = anonymous.post(path, {}, format="json")
    assert throttled.status_code == 429
    assert throttled["Content-Type"] == "application/problem+json"
    assert 1 <= int(throttled["Retry-After"]) <= 60
    assert anonymous.post(path, {}, format="json", REMOTE_ADDR="192.0.2.9").status_code == 400


def test_a_new_window_begins_when_the_old_one_is_over(settings: Settings) -> None:
    settings.THROTTLE_RATES = {"register": Rate(1, 60)}
    assert [register().status_code for _ in range(2)] == [400, 429]
    RequestCount.objects.update(ends_at=timezone.now() - timedelta(seconds=1))
    assert [register().status_code for _ in range(2)] == [400, 429]


def test_expired_windows_are_deleted(settings: Settings) -> None:
    for last in range(3):
        register(REMOTE_ADDR=f"192.0.2.{last}")
    RequestCount.objects.update(ends_at=timezone.now() - timedelta(seconds=1))
    register(REMOTE_ADDR="192.0.2.9")
    assert [row.client for row in RequestCount.objects.all()] == ["register 192.0.2.9"]


@pytest.mark.django_db(transaction=True)
def test_simultaneous_requests_are_each_counted(settings: Settings) -> None:
    settings.THROTTLE_RATES = {"register": Rate(7, 60)}
    together = threading.Barrier(20)
    statuses: list[int] = []

    def ask() -> None:
        together.wait()
        try:
            statuses.append(register().status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [400] * 7 + [429] * 13


def test_each_user_has_a_separate_throttle(api: APIClient, settings: Settings) -> None:
    settings.THROTTLE_RATES = settings.THROTTLE_RATES | {"user": Rate(2, 60)}
    assert [api.get("/api/orders").status_code for _ in range(3)] == [200, 200, 429]
    assert api.get("/api/notifications").status_code == 429
    other = APIClient()
    other.force_authenticate(UserFactory.create())
    assert other.get("/api/orders").status_code == 200


def test_nothing_is_counted_without_a_rate(api: APIClient, anonymous: APIClient, settings: Settings) -> None:
    with CaptureQueriesContext(connection) as queries:
        api.get("/api/orders")
        settings.THROTTLE_RATES = settings.THROTTLE_RATES | {"user": Rate(2, 60)}
        anonymous.get("/health/live")
    assert not [one for one in queries if "request_count" in one["sql"]]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "203.0.113.7", "192.0.2.1"),
        (1, None, "192.0.2.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (2, "198.51.100.1, 203.0.113.7, 192.0.2.200", "203.0.113.7"),
        (2, "203.0.113.7", "192.0.2.1"),
        (1, "2001:DB8::0001", "2001:db8::1"),
        (1, "fe80::1%eth0", "fe80::1"),
        (1, "fe80::1%" + "z" * 300, "fe80::1"),
        (1, "::ffff:203.0.113.7", "203.0.113.7"),
        (1, "198.51.100.1, nonsense", "192.0.2.1"),
        (1, "203.0.113.7:4711", "192.0.2.1"),
        (1, "", "192.0.2.1"),
    ],
)
def test_only_trusted_proxies_set_the_client_address(
    settings: Settings, proxies: int, forwarded: str | None, address: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR="192.0.2.1")
    assert client_address(request) == address


def test_throttles_and_lockouts_count_by_the_same_address(settings: Settings, user: User) -> None:
    settings.TRUSTED_PROXIES = 1
    body = {"username": user.username, "password": "wrong"}
    for _ in range(10):
        APIClient().post("/api/auth/token", body, format="json", headers={"x-forwarded-for": "203.0.113.7"})
    locked, free = (
        APIClient().post("/api/auth/token", body, format="json", headers={"x-forwarded-for": address}).status_code
        for address in ("9.9.9.9, 203.0.113.7", "203.0.113.7, 203.0.113.8")
    )
    assert (locked, free) == (429, 401)
    assert {row.client for row in RequestCount.objects.all()} == {"token 203.0.113.7", "token 203.0.113.8"}
