"""`GET` and `PATCH /api/me`: callers read their own account, change its address, and turn its e-mails on or off."""

import json
import unicodedata
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from notifications.models import EmailOptOut
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

ME = "/api/me"
PASSWORD = "correct horse battery"


@pytest.fixture
def user() -> User:
    return UserFactory.create(username="mina", email="mina@example.com")


def patch(api: APIClient, body: Any) -> Any:
    return api.generic("PATCH", ME, json.dumps(body), content_type="application/json")


def test_the_account_has_exactly_four_fields(api: APIClient, user: User) -> None:
    answer = api.get(ME)
    assert answer.status_code == 200
    expected = {"id": user.pk, "username": "mina", "email": "mina@example.com", "emailNotifications": True}
    assert answer.json() == expected
    assert list(answer.json()) == list(expected)


def test_only_the_caller_sees_and_changes_the_account(api: APIClient, anonymous: APIClient, user: User) -> None:
    other = UserFactory.create(email="other@example.com")
    patch(api, {"id": other.pk, "username": other.username, "email": "new@example.com", "emailNotifications": False})
    other.refresh_from_db()
    assert other.email == "other@example.com"
    assert list(EmailOptOut.objects.values_list("user", flat=True)) == [user.pk]
    for method in ("get", "head", "patch"):
        assert getattr(anonymous, method)(ME).status_code == 401


def test_an_account_without_an_address_has_an_empty_text(user: User) -> None:
    client = APIClient()
    client.force_authenticate(UserFactory.create())
    assert client.get(ME).json()["email"] == ""


@pytest.mark.parametrize(
    ("given", "saved"),
    [
        ("new@example.com", "new@example.com"),
        ("  new@example.com\n", "new@example.com"),
        ("New.Name+shop@EXAMPLE.Com", "New.Name+shop@example.com"),
        ("ｎｅｗ＠ｅｘａｍｐｌｅ．ｃｏｍ", "new@example.com"),
        ('"a,b\'c"@example.com', '"a,b\'c"@example.com'),
        ("user@[192.0.2.1]", "user@[192.0.2.1]"),
        ("user@localhost", "user@localhost"),
        (unicodedata.normalize("NFD", "user@한국.com"), "user@한국.com"),
        ("a" * 242 + "@example.com", "a" * 242 + "@example.com"),
        ("", ""),
        ("   ", ""),
        (None, ""),
    ],
)
def test_an_address_is_normalised_alike_at_every_way_in(
    api: APIClient, anonymous: APIClient, user: User, given: str | None, saved: str
) -> None:
    answer = patch(api, {"email": given})
    assert (answer.status_code, answer.json().get("email")) == (200, saved)
    user.refresh_from_db()
    assert user.email == saved == api.get(ME).json()["email"]
    registration = {"username": "newcomer", "password": PASSWORD, "email": given}
    assert anonymous.post("/api/auth/register", registration, format="json").status_code == 201
    assert User.objects.get(username="newcomer").email == saved


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"email": "nowhere"}, "/email"),
        ({"email": "a@b"}, "/email"),
        ({"email": "a b@example.com"}, "/email"),
        ({"email": "a@example.com, b@example.com"}, "/email"),
        ({"email": "Mina <mina@example.com>"}, "/email"),
        ({"email": "a@example.com\r\nBcc: b@example.com"}, "/email"),
        ({"email": "a\n@example.com"}, "/email"),
        ({"email": "nul\0@example.com"}, "/email"),
        ({"email": "a\u2028@example.com"}, "/email"),
        ({"email": "민아@example.com"}, "/email"),
        ({"email": "a" * 243 + "@example.com"}, "/email"),
        # A letter that NFKC expands to eighteen.
        ({"email": "ﷺ" * 14 + "@example.com"}, "/email"),
        ({"email": 7}, "/email"),
        ({"email": True}, "/email"),
        ({"email": ["a@example.com"]}, "/email"),
        ({"email": {"a": "b"}}, "/email"),
        ({"emailNotifications": None}, "/emailNotifications"),
        ({"emailNotifications": "true"}, "/emailNotifications"),
        ({"emailNotifications": "false"}, "/emailNotifications"),
        ({"emailNotifications": ""}, "/emailNotifications"),
        ({"emailNotifications": 0}, "/emailNotifications"),
        ({"emailNotifications": 1}, "/emailNotifications"),
        ({"emailNotifications": 1.0}, "/emailNotifications"),
        ({"emailNotifications": []}, "/emailNotifications"),
        ({"emailNotifications": {}}, "/emailNotifications"),
        ([], ""),
        ("email", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_an_invalid_change_is_refused_as_a_whole(api: APIClient, user: User, body: Any, pointer: str) -> None:
    if isinstance(body, dict):
        body = {"email": "new@example.com", "emailNotifications": False} | body
    answer = patch(api, body)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    if pointer or "errors" in answer.json():
        assert {error["pointer"] for error in answer.json()["errors"]} == {pointer}
    user.refresh_from_db()
    assert user.email == "mina@example.com"
    assert not EmailOptOut.objects.exists()


def test_a_missing_field_stays_as_it_is(api: APIClient, user: User) -> None:
    patch(api, {"emailNotifications": False})
    assert patch(api, {"email": "new@example.com"}).json()["emailNotifications"] is False
    assert patch(api, {"emailNotifications": True}).json()["email"] == "new@example.com"
    before = api.get(ME).json()
    assert patch(api, {}).json() == before


def test_no_other_field_can_be_changed(api: APIClient, user: User) -> None:
    before = User.objects.values().get(pk=user.pk)
    given = {field.name: "x" for field in User._meta.fields} | {"is_staff": True, "is_superuser": True, "id": 1}
    answer = patch(api, given | {"email": "new@example.com", "wants_emails": False, "nonsense": [{}]})
    assert answer.json() == {"id": user.pk, "username": "mina", "email": "new@example.com", "emailNotifications": True}
    assert User.objects.values().get(pk=user.pk) == before | {"email": "new@example.com"}


def test_turning_mails_off_is_the_same_as_opting_out(api: APIClient, user: User) -> None:
    for wanted in (False, False, True, True, False):
        assert patch(api, {"emailNotifications": wanted}).json()["emailNotifications"] is wanted
        assert EmailOptOut.objects.filter(user=user).exists() is not wanted
        assert api.get(ME).json()["emailNotifications"] is wanted


def test_tokens_remain_valid_after_a_new_address(anonymous: APIClient, user: User) -> None:
    tokens = anonymous.post("/api/auth/token", {"username": "mina", "password": PASSWORD}, format="json").json()
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access']}")
    assert patch(anonymous, {"email": "new@example.com", "emailNotifications": False}).status_code == 200
    assert anonymous.get(ME).json()["email"] == "new@example.com"
    refreshed = anonymous.post("/api/auth/token/refresh", {"refresh": tokens["refresh"]}, format="json")
    assert refreshed.status_code == 200


def test_an_account_deleted_during_the_request_is_not_found(api: APIClient, user: User) -> None:
    # `api` authenticates without a query, as if the account was deleted right after it.
    User.objects.filter(pk=user.pk).delete()
    assert api.get(ME).status_code == 404
    assert patch(api, {"emailNotifications": False}).status_code == 404


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_taken(api: APIClient, content_type: str) -> None:
    answer = api.generic("PATCH", ME, b'{"email":"new@example.com"}', content_type=content_type)
    assert (answer.status_code, answer["Content-Type"]) == (415, "application/problem+json")


def test_a_body_above_the_limit_is_refused(api: APIClient, user: User) -> None:
    answer = patch(api, {"email": "new@example.com", "filler": "x" * 256 * 1024})
    assert (answer.status_code, answer["Content-Type"]) == (413, "application/problem+json")
    user.refresh_from_db()
    assert user.email == "mina@example.com"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused_with_the_allowed_ones(api: APIClient, method: str) -> None:
    answer = api.generic(method, ME)
    assert (answer.status_code, answer["Content-Type"]) == (405, "application/problem+json")
    assert set(answer["Allow"].split(", ")) == {"GET", "HEAD", "PATCH"}


def test_head_is_get_without_the_body(api: APIClient) -> None:
    head = api.head(ME)
    assert (head.status_code, head.content, head["Content-Type"]) == (200, b"", "application/json")


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(email=st.emails() | st.text(max_size=300) | st.from_regex(r"[^@]{1,9}@[^@]{1,9}\.[a-z]{2,5}"))
def test_every_text_is_saved_as_django_judges_it_or_refused(api: APIClient, user: User, email: str) -> None:
    # JSON in UTF-8 has no lone surrogates.
    answer = patch(api, {"email": email.encode(errors="ignore").decode()})
    user.refresh_from_db()
    assert answer.status_code in (200, 400)
    assert connection.is_usable()
    if answer.status_code == 200 and user.email:
        validate_email(user.email)
        assert user.email == unicodedata.normalize("NFKC", User.objects.normalize_email(user.email))
    if answer.status_code == 400:
        with pytest.raises(ValidationError):
            User(username="x", password="x", email=_normalised(email)).full_clean(exclude=["username", "password"])


def _normalised(email: str) -> str:
    return User.objects.normalize_email(unicodedata.normalize("NFKC", email.encode(errors="ignore").decode().strip()))
