import threading

import pytest
from django.contrib.auth.models import User
from django.db import connection
from rest_framework.test import APIClient

from tests.factories import UserFactory

PASSWORD = "correct horse battery"


def tokens(client: APIClient, username: str, password: str = PASSWORD) -> dict[str, str]:
    response = client.post("/api/auth/token", {"username": username, "password": password}, format="json")
    assert response.status_code == 200
    return response.json()


@pytest.mark.django_db
def test_a_new_customer_registers_logs_in_and_is_let_in(anonymous: APIClient) -> None:
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
        ({"username": None}, "/username"),
        ({"username": 7}, "/username"),
        ({"password": 31415926535897}, "/password"),
        ({"email": "nowhere"}, "/email"),
    ],
)
def test_a_registration_that_cannot_be_is_refused(
    anonymous: APIClient, changes: dict[str, object], pointer: str
) -> None:
    UserFactory.create(username="taken")
    body = {"username": "mina", "password": PASSWORD} | changes
    response = anonymous.post("/api/auth/register", body, format="json")
    assert response.status_code == 400
    assert pointer in [error["pointer"] for error in response.json()["errors"]]
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_nobody_registers_as_staff(anonymous: APIClient) -> None:
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
    for end in (User.delete, lambda user: User.objects.filter(pk=user.pk).update(is_active=False)):
        user = UserFactory.create()
        pair = tokens(anonymous, user.username)
        end(user)
        refreshed = anonymous.post("/api/auth/token/refresh", {"refresh": pair["refresh"]}, format="json")
        assert refreshed.status_code == 401
        asked = APIClient(headers={"authorization": f"Bearer {pair['access']}"}).get("/api/orders")
        assert asked.status_code == 401
        assert asked["Content-Type"] == "application/problem+json"


@pytest.mark.django_db
def test_a_token_is_good_for_its_own_purpose_only(anonymous: APIClient, user: User) -> None:
    pair = tokens(anonymous, user.username)
    with_refresh = APIClient(headers={"authorization": f"Bearer {pair['refresh']}"}).get("/api/orders")
    with_access = anonymous.post("/api/auth/token/refresh", {"refresh": pair["access"]}, format="json")
    with_garbage = APIClient(headers={"authorization": "Bearer garbage"}).get("/api/orders")
    assert [with_refresh.status_code, with_access.status_code, with_garbage.status_code] == [401, 401, 401]
