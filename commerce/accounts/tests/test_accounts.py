import threading
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient
from rest_framework_simplejwt.utils import get_md5_hash_password

from orders.models import Order
from testkit.factories import UserFactory

PASSWORD = "correct horse battery"


def tokens(client: APIClient, username: str, password: str = PASSWORD) -> dict[str, str]:
    response = client.post("/api/auth/token", {"username": username, "password": password}, format="json")
    assert response.status_code == 200
    return response.json()


@pytest.mark.django_db
def test_a_new_customer_registers_and_logs_in(anonymous: APIClient) -> None:
    body = {"username": "mina", "password": PASSWORD, "email": "mina@example.com"}
    registered = anonymous.post("/api/auth/register", body, format="json")
    user = User.objects.get()
    assert registered.status_code == 201
    assert registered.json() == {"id": user.pk, "username": "mina"}
    assert user.email == "mina@example.com"
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens(anonymous, 'mina')['access']}")
    assert anonymous.get("/api/orders").json() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"password": "short"}, "/password"),
        ({"password": "password123"}, "/password"),
        ({"password": "x" * 129}, "/password"),
        ({"username": "taken"}, "/username"),
        ({"username": "with space"}, "/username"),
        ({"username": "nul\0"}, "/username"),
        # The same name in full width, and a letter that NFKC expands to eighteen.
        ({"username": "ｔａｋｅｎ"}, "/username"),
        ({"username": "ﷺ" * 9}, "/username"),
        ({"username": None}, "/username"),
        ({"username": 7}, "/username"),
        ({"password": 31415926535897}, "/password"),
        ({"email": "nowhere"}, "/email"),
    ],
)
def test_an_invalid_registration_is_refused(anonymous: APIClient, changes: dict[str, object], pointer: str) -> None:
    UserFactory.create(username="taken")
    body = {"username": "mina", "password": PASSWORD} | changes
    response = anonymous.post("/api/auth/register", body, format="json")
    assert response.status_code == 400
    assert pointer in [error["pointer"] for error in response.json()["errors"]]
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_all_compositions_of_a_name_are_one_name(anonymous: APIClient) -> None:
    composed, in_parts = unicodedata.normalize("NFC", "민아"), unicodedata.normalize("NFD", "민아")
    assert composed != in_parts
    registered = anonymous.post("/api/auth/register", {"username": in_parts, "password": PASSWORD}, format="json")
    assert registered.json()["username"] == composed
    assert tokens(anonymous, in_parts)
    assert tokens(anonymous, composed)


@pytest.mark.django_db
@pytest.mark.parametrize("email", ["", None])
def test_an_empty_email_is_none(anonymous: APIClient, email: str | None) -> None:
    body = {"username": "mina", "password": PASSWORD, "email": email}
    assert anonymous.post("/api/auth/register", body, format="json").status_code == 201
    assert User.objects.get().email == ""


SPELLINGS = ("ＣＲéme brûlée ﬁne", "비밀번호는 한글", "Ångström ① ẛ̣")
"""Passwords with several spellings in Unicode. The NFKC form of the second equals its NFC form."""


@pytest.mark.django_db
@pytest.mark.parametrize("password", SPELLINGS)
@pytest.mark.parametrize("registered_as", ["NFC", "NFD", "NFKC", "NFKD"])
def test_all_compositions_of_a_password_log_in(anonymous: APIClient, password: str, registered_as: Any) -> None:
    body = {"username": "mina", "password": unicodedata.normalize(registered_as, password)}
    assert anonymous.post("/api/auth/register", body, format="json").status_code == 201
    User.objects.update(is_staff=True)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        typed = unicodedata.normalize(form, password)
        assert tokens(anonymous, "mina", typed)
        to_admin = Client().post("/admin/login/?next=/admin/", {"username": "mina", "password": typed})
        assert (to_admin.status_code, to_admin["Location"]) == (302, "/admin/")
    assert log_in_status(anonymous, "mina", password + "x") == 401


@pytest.mark.django_db
@pytest.mark.parametrize("password", SPELLINGS)
def test_a_hash_of_an_older_spelling_keeps_working(anonymous: APIClient, password: str) -> None:
    raw = unicodedata.normalize("NFD", password)
    UserFactory.create(username="mina")
    User.objects.update(password=PBKDF2PasswordHasher().encode(raw, "salt", 1))
    assert tokens(anonymous, "mina", raw)
    assert log_in_status(anonymous, "mina", unicodedata.normalize("NFC", "é" + password)) == 401


@pytest.mark.django_db
def test_password_limits_apply_to_the_normal_form(anonymous: APIClient) -> None:
    body = {"username": "mina", "password": "ﷺ" * 9}
    refused = anonymous.post("/api/auth/register", body, format="json")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/password"]


def log_in_status(client: APIClient, username: str, password: str) -> int:
    return client.post("/api/auth/token", {"username": username, "password": password}, format="json").status_code


@pytest.mark.django_db
def test_registration_cannot_create_staff(anonymous: APIClient) -> None:
    body = {"username": "mina", "password": PASSWORD, "is_staff": True, "is_superuser": True, "id": 77}
    anonymous.post("/api/auth/register", body, format="json")
    user = User.objects.get()
    assert not user.is_staff
    assert not user.is_superuser
    assert user.pk != 77


@pytest.mark.django_db
def test_a_wrong_pair_is_unauthorized(anonymous: APIClient, user: User) -> None:
    for body in ({"username": user.username, "password": "wrong"}, {"username": "nobody", "password": PASSWORD}):
        response = anonymous.post("/api/auth/token", body, format="json")
        assert response.status_code == 401
        assert response["Content-Type"] == "application/problem+json"


@pytest.mark.django_db
def test_a_refresh_token_works_once(anonymous: APIClient, user: User) -> None:
    refresh = tokens(anonymous, user.username)["refresh"]
    first = anonymous.post("/api/auth/token/refresh", {"refresh": refresh}, format="json")
    assert first.status_code == 200
    assert set(first.json()) == {"access", "refresh"}
    assert anonymous.post("/api/auth/token/refresh", {"refresh": refresh}, format="json").status_code == 401
    renewed = {"refresh": first.json()["refresh"]}
    assert anonymous.post("/api/auth/token/refresh", renewed, format="json").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_of_parallel_uses_of_a_refresh_token_one_wins(anonymous: APIClient, user: User) -> None:
    refresh = tokens(anonymous, user.username)["refresh"]
    together = threading.Barrier(4)
    statuses: list[int] = []

    def use() -> None:
        together.wait()
        try:
            response = APIClient().post("/api/auth/token/refresh", {"refresh": refresh}, format="json")
            statuses.append(response.status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 401, 401, 401]


@pytest.mark.django_db
def test_a_deleted_or_deactivated_user_is_refused_at_once(anonymous: APIClient) -> None:
    for end, reason in (
        (User.delete, "User not found"),
        (lambda user: User.objects.filter(pk=user.pk).update(is_active=False), "User is inactive"),
    ):
        user = UserFactory.create()
        pair = tokens(anonymous, user.username)
        end(user)
        refreshed = anonymous.post("/api/auth/token/refresh", {"refresh": pair["refresh"]}, format="json")
        assert refreshed.status_code == 401
        asked = APIClient(headers={"authorization": f"Bearer {pair['access']}"}).get("/api/orders")
        assert asked.status_code == 401
        assert asked["Content-Type"] == "application/problem+json"
        assert asked.json()["detail"] == reason


@pytest.mark.django_db
def test_an_expired_token_is_refused(anonymous: APIClient, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens(anonymous, user.username)['access']}")
    assert anonymous.get("/api/orders").status_code == 200
    later = datetime.now(UTC) + timedelta(minutes=15, seconds=1)
    monkeypatch.setattr("commerce.accounts.authentication.aware_utcnow", lambda: later)
    answer = anonymous.get("/api/orders")
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


@pytest.mark.django_db
def test_a_new_password_revokes_the_tokens_of_the_old_one(anonymous: APIClient, user: User) -> None:
    pair = tokens(anonymous, user.username)
    user.set_password("another horse battery")
    user.save()
    asked = APIClient(headers={"authorization": f"Bearer {pair['access']}"}).get("/api/orders")
    assert asked.status_code == 401
    assert asked.json()["detail"] == "The user's password has been changed."
    refreshed = anonymous.post("/api/auth/token/refresh", {"refresh": pair["refresh"]}, format="json")
    assert refreshed.status_code == 401
    assert refreshed["Content-Type"] == "application/problem+json"
    renewed = tokens(anonymous, user.username, "another horse battery")
    assert anonymous.post("/api/auth/token/refresh", {"refresh": renewed["refresh"]}, format="json").status_code == 200


@pytest.mark.django_db
def test_a_token_works_for_its_own_purpose_only(anonymous: APIClient, user: User) -> None:
    pair = tokens(anonymous, user.username)
    with_refresh = APIClient(headers={"authorization": f"Bearer {pair['refresh']}"}).get("/api/orders")
    with_access = anonymous.post("/api/auth/token/refresh", {"refresh": pair["access"]}, format="json")
    with_garbage = APIClient(headers={"authorization": "Bearer garbage"}).get("/api/orders")
    assert [with_refresh.status_code, with_access.status_code, with_garbage.status_code] == [401, 401, 401]


def forged(changes: dict[str, Any], *, key: str = settings.JWT_SIGNING_KEY, algorithm: str = "HS256") -> str:
    claims = {
        "token_type": "access",
        "exp": datetime.now(UTC) + timedelta(minutes=5),
        "jti": "1",
        "iss": "commerce",
        "aud": "commerce",
    }
    given = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(given, key, algorithm)


@pytest.mark.parametrize(
    "make",
    [
        lambda good: forged(good, key="", algorithm="none"),
        lambda good: forged(good, algorithm="HS384"),
        lambda good: forged(good, key="another key that is long enough for HS256"),
        lambda good: forged(good | {"exp": datetime.now(UTC) - timedelta(seconds=1)}),
        lambda good: forged(good | {"exp": None}),
        lambda good: forged(good | {"iss": "somebody"}),
        lambda good: forged(good | {"aud": "somebody"}),
        lambda good: forged(good | {"aud": None}),
        lambda good: forged(good | {"token_type": "refresh"}),
        lambda good: forged(good | {"hash_password": None}),
        lambda good: forged(good | {"user_id": None}),
        lambda good: forged(good | {"user_id": "999999999"}),
        lambda good: forged(good | {"user_id": "9" * 30}),
        lambda good: forged(good | {"user_id": "nobody"}),
        lambda good: forged(good | {"user_id": "1\0"}),
        lambda good: forged(good | {"user_id": [1]}),
        lambda good: forged(good | {"exp": 10**18}),
        lambda good: forged(good | {"jti": None}),
        lambda good: _tampered(forged(good)),
        lambda _: "garbage",
        lambda _: "two words",
        lambda _: "",
        lambda _: "\xff",
        lambda _: "a.b.c",
    ],
)
def test_a_forged_token_is_refused(user: User, make: Callable[[dict[str, Any]], str]) -> None:
    good = {"user_id": str(user.pk), "hash_password": get_md5_hash_password(user.password)}
    assert APIClient(headers={"authorization": f"Bearer {forged(good)}"}).get("/api/orders").status_code == 200
    refused = APIClient(headers={"authorization": f"Bearer {make(good)}"}).get("/api/orders")
    assert refused.status_code == 401
    assert refused["Content-Type"] == "application/problem+json"


def _tampered(token: str) -> str:
    header, claims, signature = token.split(".")
    return f"{header}.{'f' if claims[0] != 'f' else 'g'}{claims[1:]}.{signature}"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("literal", "status"), [('"garbage"', 401), ('"a.b.c"', 401), ('"\\ud800"', 400), ('"\\u0000"', 400), ("null", 400)]
)
def test_a_refresh_with_garbage_is_refused(anonymous: APIClient, literal: str, status: int) -> None:
    body = f'{{"refresh":{literal}}}'
    response = anonymous.post("/api/auth/token/refresh", body, content_type="application/json")
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "claims", [{"jti": None}, {"jti": "\0"}, {"jti": "f" * 300}, {"jti": [1]}, {"user_id": "nobody"}, {"exp": 10**18}]
)
def test_a_refresh_token_with_claims_of_others_is_refused(
    anonymous: APIClient, user: User, claims: dict[str, Any]
) -> None:
    good = {"token_type": "refresh", "user_id": str(user.pk), "hash_password": get_md5_hash_password(user.password)}
    response = anonymous.post("/api/auth/token/refresh", {"refresh": forged(good | claims)}, format="json")
    assert response.status_code == 401
    assert anonymous.post("/api/auth/token/refresh", {"refresh": forged(good)}, format="json").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_of_a_token_has_no_case(anonymous: APIClient, user: User, scheme: str) -> None:
    access = tokens(anonymous, user.username)["access"]
    assert APIClient(headers={"authorization": f"{scheme} {access}"}).get("/api/orders").status_code == 200


@pytest.mark.django_db
def test_a_token_check_costs_one_query(
    anonymous: APIClient, user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    access = tokens(anonymous, user.username)["access"]
    with django_assert_num_queries(2):  # The user and the orders.
        APIClient(headers={"authorization": f"Bearer {access}"}).get("/api/orders")


@pytest.mark.django_db
def test_an_order_costs_a_look_at_its_customer_and_one_statement(
    anonymous: APIClient, user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    access = tokens(anonymous, user.username)["access"]
    customer = APIClient(headers={"authorization": f"Bearer {access}"})
    with django_assert_num_queries(2):
        placed = customer.post("/api/orders", {"items": [{"productId": 1, "quantity": 2, "price": 100}]}, format="json")
    assert placed.status_code == 201
    assert Order.objects.get().pk == placed.json()["id"]


@pytest.mark.django_db
def test_only_placing_an_order_draws_an_order_id(anonymous: APIClient, user: User) -> None:
    access = tokens(anonymous, user.username)["access"]
    before = Order.objects.next_id()
    APIClient(headers={"authorization": f"Bearer {access}"}).get("/api/orders")
    APIClient(headers={"authorization": f"Bearer {access}x"}).post("/api/orders")
    assert Order.objects.next_id() == before + 1
