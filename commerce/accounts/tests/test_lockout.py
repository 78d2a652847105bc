import re
import threading
import unicodedata
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import translation
from django.utils.crypto import pbkdf2
from django.utils.translation import gettext
from pytest_django import Settings
from rest_framework.test import APIClient

from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _unthrottled(settings: Settings) -> None:
    settings.THROTTLE_RATES = dict.fromkeys(settings.THROTTLE_RATES)


def log_in(username: str, password: str = PASSWORD, *, address: str = "192.0.2.1", **headers: str) -> Any:
    body = {"username": username, "password": password}
    return APIClient().post("/api/auth/token", body, format="json", headers=headers, REMOTE_ADDR=address)


def fail(username: str, times: int, **sender: str) -> list[int]:
    return [log_in(username, "wrong", **sender).status_code for _ in range(times)]


def test_after_ten_wrong_passwords_even_the_right_one_is_refused(user: User) -> None:
    assert fail(user.username, 10) == [401] * 10
    locked = log_in(user.username)
    assert locked.status_code == 429
    assert locked["Content-Type"] == "application/problem+json"
    assert 290 <= int(locked["Retry-After"]) <= 300


def test_the_right_password_resets_nine_wrong_ones(user: User) -> None:
    for _ in range(2):
        assert fail(user.username, 9) == [401] * 9
        assert log_in(user.username).status_code == 200


def test_further_attempts_do_not_prolong_a_lock_of_five_minutes(user: User) -> None:
    fail(user.username, 10)
    AccessAttempt.objects.update(attempt_time=AccessAttempt.objects.get().attempt_time - timedelta(minutes=4))
    locked = log_in(user.username)
    assert (locked.status_code, int(locked["Retry-After"]) <= 60) == (429, True)
    AccessAttempt.objects.update(attempt_time=AccessAttempt.objects.get().attempt_time - timedelta(minutes=1))
    assert log_in(user.username).status_code == 200


def test_the_lock_applies_to_one_name_at_one_address(user: User) -> None:
    fail(user.username, 10)
    assert log_in(user.username, address="192.0.2.2").status_code == 200
    assert log_in(UserFactory.create().username).status_code == 200


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "user-agent"])
def test_no_header_circumvents_the_lock(user: User, header: str) -> None:
    statuses = [log_in(user.username, "wrong", **{header: f"192.0.2.{n}"}).status_code for n in range(11)]
    assert statuses == [401] * 10 + [429]


def test_unknown_and_known_names_get_the_same_answer(user: User) -> None:
    answers = []
    for name in (user.username, "nobody"):
        attempts = [log_in(name, "wrong") for _ in range(10)]
        answers.append([(one.status_code, one.content, one["WWW-Authenticate"]) for one in attempts])
        assert log_in(name, "wrong").status_code == 429
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("right", "wrong", "hashes"),
    [
        (PASSWORD, "wrong", 1),
        ("cr\u00e8me br\u00fbl\u00e9e", "cre\u0300me", 2),
        ("cre\u0300me bru\u0302le\u0301e", "cre\u0300me", 2),
    ],
)
def test_known_unknown_and_inactive_names_cost_the_same_hashing(
    monkeypatch: pytest.MonkeyPatch, right: str, wrong: str, hashes: int
) -> None:
    hashed: list[str] = []

    def counted(password: str, *given: Any, **options: Any) -> bytes:
        hashed.append(password)
        return pbkdf2(password, *given, **options)

    monkeypatch.setattr("django.contrib.auth.hashers.pbkdf2", counted)
    known = UserFactory.create()
    unusable = UserFactory.create(password=None)
    inactive = UserFactory.create(is_active=False, password=right)
    typed = unicodedata.normalize("NFD", right)
    costs = []
    for name, password in [
        *((known.username, wrong), ("nobody", wrong), (unusable.username, wrong)),
        (inactive.username, typed),
    ]:
        hashed.clear()
        assert log_in(name, password).status_code == 401
        costs.append(len(hashed))
    assert costs == [hashes] * 4


@pytest.mark.parametrize(
    "body",
    [
        {"username": "x" * 151, "password": PASSWORD},
        {"username": "nul\0", "password": PASSWORD},
        {"username": "mina", "password": "x" * 129},
        {"username": ["mina"], "password": PASSWORD},
        {"username": "mina"},
        [],
    ],
)
def test_a_body_without_name_and_password_is_refused(anonymous: APIClient, body: object) -> None:
    response = anonymous.post("/api/auth/token", body, format="json")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


def test_a_password_keeps_its_spaces(user: User) -> None:
    user.set_password(" with spaces ")
    user.save()
    assert log_in(user.username, " with spaces ").status_code == 200


def test_odd_headers_and_queries_do_not_break_the_login(anonymous: APIClient, user: User) -> None:
    response = anonymous.post(
        "/api/auth/token?a=%00&b=%ff",
        {"username": user.username, "password": "wrong"},
        format="json",
        headers={"user-agent": "x" * 5000, "x-forwarded-for": "not, an, address"},
    )
    assert response.status_code == 401


def test_admin_locks_as_the_api_does(admin_user: User) -> None:
    body = {"username": admin_user.username, "password": "wrong"}
    statuses = [Client().post("/admin/login/", body).status_code for _ in range(10)]
    assert statuses[:9] == [200] * 9
    locked = Client().post("/admin/login/", body | {"password": "password"})
    assert locked.status_code == 429
    assert locked["Content-Type"].startswith("text/html")
    assert int(locked["Retry-After"]) > 290
    assert f"Try again in {locked['Retry-After']} seconds." in locked.content.decode()
    assert log_in(admin_user.username, "password", address="127.0.0.1").status_code == 429


@pytest.mark.django_db(transaction=True)
def test_simultaneous_guesses_are_counted(user: User) -> None:
    together = threading.Barrier(20)
    statuses: list[int] = []

    def guess() -> None:
        together.wait()
        try:
            statuses.append(log_in(user.username, "wrong").status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {401, 429}
    assert statuses.count(401) <= 10
    assert log_in(user.username).status_code == 429


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_of_a_locked_login_leads_on(admin_user: User, language: str) -> None:
    fail(admin_user.username, 10, address="127.0.0.1")
    address = "/admin/login/?next=/admin/pipeline/%3Fa%3D1%26b"
    body = {"username": admin_user.username, "password": "password"}
    locked = Client().post(address, body, headers={"accept-language": language})
    assert locked.status_code == 429
    for label, link in (("Go back", address), ("To the start page", "/")):
        with translation.override(language):
            text = gettext(label)
        assert re.search(rf'<a[^>]*href="{re.escape(link)}"[^>]*>\s*{text}\s*</a>', locked.content.decode())
    assert Client().get(address).status_code == 200


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_admin_counts_logins_of_accounts_without_access(user: User, password: str) -> None:
    body = {"username": user.username, "password": password}
    statuses = [Client().post("/admin/login/", body).status_code for _ in range(11)]
    assert statuses == [200] * 9 + [429] * 2
    assert AccessAttempt.objects.get().failures_since_start == 10
