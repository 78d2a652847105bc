"""All password attempts from an address share one count, and the rows that logins leave in the database are limited."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.utils import aware_utcnow

from commerce.accounts.tokens import AccessToken, OneUseRefreshToken
from commerce.environment import Rate
from commerce.models import RequestCount
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


def api_login(password: str, client: Client) -> Any:
    return client.post("/api/auth/token", {"username": "boss", "password": password}, "application/json")


def admin_login(password: str, client: Client) -> Any:
    return client.post("/admin/login/", {"username": "boss", "password": password})


def change_of_ones_own(password: str, client: Client) -> Any:
    body = {"old_password": password, "new_password1": "another horse", "new_password2": "no such horse"}
    return client.post("/admin/password_change/", body)


WAYS = (api_login, admin_login, change_of_ones_own)


@pytest.fixture
def boss(settings: Settings) -> Client:
    settings.THROTTLE_RATES = settings.THROTTLE_RATES | {"token": Rate(6, 60)}
    user = User.objects.create_superuser("boss", password=PASSWORD)
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
@pytest.mark.parametrize("way", WAYS)
def test_a_way_to_a_password_is_throttled(boss: Client, way: Callable[..., Any], password: str) -> None:
    assert 429 not in [way(password, boss).status_code for _ in range(6)]
    throttled = way(PASSWORD, boss)
    assert throttled.status_code == 429
    assert 1 <= int(throttled["Retry-After"]) <= 60
    kind = "application/problem+json" if way is api_login else "text/html; charset=utf-8"
    assert throttled["Content-Type"] == kind


def test_all_ways_to_a_password_share_one_counter(boss: Client) -> None:
    for way in WAYS:
        assert way("wrong", boss).status_code != 429
        assert way(PASSWORD, boss).status_code != 429
    assert {way(PASSWORD, boss).status_code for way in WAYS} == {429}
    assert RequestCount.objects.get().client == "token 127.0.0.1"


def test_every_form_of_admin_with_a_password_is_counted(boss: Client) -> None:
    boss.post(f"/admin/auth/user/{UserFactory.create().pk}/password/", {"password1": "a", "password2": "b"})
    boss.put("/admin/login/", "username=boss&password=wrong", "application/x-www-form-urlencoded")
    assert RequestCount.objects.get().requests == 1
    boss.get("/admin/login/?password=wrong")
    boss.post("/admin/login/", {"username": "boss"})
    boss.post("/admin/i18n/setlang/", {"language": "ko"})
    assert RequestCount.objects.get().requests == 1


def test_a_form_without_a_csrf_token_uses_up_no_attempt(boss: Client) -> None:
    stranger = Client(enforce_csrf_checks=True)
    assert admin_login("wrong", stranger).status_code == 403
    assert not RequestCount.objects.exists()


def test_the_refusal_is_in_the_users_language(boss: Client) -> None:
    for _ in range(6):
        admin_login("wrong", boss)
    page = Client(headers={"accept-language": "ko"}).post("/admin/login/", {"username": "boss", "password": "wrong"})
    assert page.status_code == 429
    assert "시도가 너무 많았습니다" in page.content.decode()
    assert "<html" in page.content.decode()


# --- Rows that logins leave behind ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/auth/token", "/admin/login/"])
def test_tried_names_leave_no_more_rows_than_the_throttle_allows(boss: Client, path: str) -> None:
    kind = {"content_type": "application/json"} if path.startswith("/api") else {}
    for number in range(20):
        Client().post(path, {"username": f"name-{number}", "password": "wrong"}, **kind)
    assert AccessAttempt.objects.count() == 6


def test_pruning_removes_expired_counts_and_tokens(settings: Settings, user: User) -> None:
    for name in ("old", "new"):
        APIClient().post("/api/auth/token", {"username": name, "password": "wrong"}, format="json", REMOTE_ADDR="::1")
    AccessAttempt.objects.filter(username="old").update(attempt_time=timezone.now() - settings.AXES_COOLOFF_TIME)
    for _ in range(2):
        OneUseRefreshToken.for_user(user).blacklist()
    expired = OutstandingToken.objects.earliest("pk")
    OutstandingToken.objects.filter(pk=expired.pk).update(expires_at=aware_utcnow() - timedelta(seconds=1))
    RequestCount.objects.create(client="token ::2", requests=1, ends_at=timezone.now() - timedelta(seconds=1))
    call_command("prune_logins")
    assert [attempt.username for attempt in AccessAttempt.objects.all()] == ["new"]
    assert OutstandingToken.objects.count() == BlacklistedToken.objects.count() == 1
    assert not OutstandingToken.objects.filter(pk=expired.pk).exists()
    assert [row.client for row in RequestCount.objects.all()] == ["token ::1"]


# --- Refreshing ----------------------------------------------------------------------------------


def refresh(token: object, address: str = "192.0.2.1") -> Any:
    return APIClient().post("/api/auth/token/refresh", {"refresh": token}, format="json", REMOTE_ADDR=address)


def test_refreshes_are_limited_per_address(settings: Settings) -> None:
    settings.THROTTLE_RATES = settings.THROTTLE_RATES | {"refresh": Rate(3, 60)}
    tokens = [str(OneUseRefreshToken.for_user(UserFactory.create())) for _ in range(4)]
    before = OutstandingToken.objects.count()
    assert [refresh(token).status_code for token in tokens] == [200, 200, 200, 429]
    assert OutstandingToken.objects.count() == before + 3
    assert refresh("garbage").status_code == 429
    assert refresh(tokens[3], "192.0.2.2").status_code == 200


def test_tokens_that_cannot_refresh_count_for_no_user(settings: Settings, user: User) -> None:
    """Other people may have seen a used token or an access token, so sending one must not use up the user's limit."""
    used = str(OneUseRefreshToken.for_user(user))
    assert refresh(used).status_code == 200
    settings.THROTTLE_RATES = settings.THROTTLE_RATES | {"refresh": Rate(3, 60)}
    for number, token in enumerate([used, str(AccessToken.for_user(user))] * 3):
        assert refresh(token, f"192.0.2.{10 + number}").status_code == 401
    assert refresh(str(OneUseRefreshToken.for_user(user)), "192.0.2.99").status_code == 200


def test_refreshes_are_limited_per_user_over_all_addresses(settings: Settings, user: User) -> None:
    settings.THROTTLE_RATES = settings.THROTTLE_RATES | {"refresh": Rate(3, 60)}
    tokens = [str(OneUseRefreshToken.for_user(user)) for _ in range(4)]
    statuses = [refresh(token, f"192.0.2.{number}").status_code for number, token in enumerate(tokens)]
    assert statuses == [200, 200, 200, 429]
    throttled = refresh(tokens[3], "192.0.2.9")
    assert 1 <= int(throttled["Retry-After"]) <= 60
    assert refresh(str(OneUseRefreshToken.for_user(UserFactory.create())), "192.0.2.9").status_code == 200


@pytest.mark.parametrize("token", ["garbage", "a.b.c", 7, None, ["a"]])
def test_an_invalid_token_counts_for_no_user(settings: Settings, token: object) -> None:
    assert refresh(token).status_code in (400, 401)
    assert [row.client for row in RequestCount.objects.all()] == ["refresh 192.0.2.1"]


def test_a_forged_token_does_not_use_up_a_users_refreshes(user: User) -> None:
    token = str(OneUseRefreshToken.for_user(user))
    assert refresh(f"{token[:-4]}AAAA").status_code == 401
    assert [row.client for row in RequestCount.objects.all()] == ["refresh 192.0.2.1"]
