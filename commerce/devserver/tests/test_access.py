"""Only this site's page, in a browser on this machine, may use the endpoints that control `make run`."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from testkit.factories import UserFactory

pytestmark = [pytest.mark.django_db, pytest.mark.urls("commerce.devserver.tests.site")]

PATHS = ["/token", "/state", "/switch"]


@pytest.fixture(autouse=True)
def _any_host(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]


def post(path: str, body: Any = None, **headers: str) -> Any:
    """Send a request as the start page does, with `headers` in addition.

    The keyword argument `address` is no header: it is the client's IP address.
    """
    client = Client(REMOTE_ADDR=headers.pop("address", "127.0.0.1"))
    sent = {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"} | headers
    return client.post(path, json.dumps(body), content_type="application/json", headers=sent)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "foreign",
    [
        {"address": "192.0.2.7"},
        {"address": "10.0.0.1"},
        {"address": ""},
        {"address": "::ffff:192.0.2.7"},
        {"x-forwarded-for": "192.0.2.7"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=192.0.2.7"},
        {"host": "evil.example"},
        {"host": "evil.example:8080", "origin": "http://evil.example:8080"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost.evil.example", "origin": "http://localhost.evil.example"},
        {"host": "192.0.2.7:8080"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9090"},
        {"origin": "https://127.0.0.1:8080"},
        {"origin": "http://localhost:8080"},
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_a_foreign_request_is_refused(path: str, foreign: dict[str, str]) -> None:
    response = post(path, **foreign)
    assert response.status_code == 403
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("host", "address"), [("localhost:8080", "127.0.0.1"), ("127.0.0.1:80", "127.0.0.2"), ("[::1]:8080", "::1")]
)
def test_a_page_of_this_site_on_this_machine_is_answered(host: str, address: str) -> None:
    User.objects.create_user("demo")
    assert post("/token", host=host, origin=f"http://{host}", address=address).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_request_without_the_pages_token_is_refused(path: str) -> None:
    client = Client(enforce_csrf_checks=True, headers={"host": "127.0.0.1:8080"})
    assert client.post(path, "{}", content_type="application/json").status_code == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["get", "head", "put", "delete"])
def test_only_post_is_accepted(path: str, method: str) -> None:
    assert getattr(Client(headers={"host": "127.0.0.1"}), method)(path).status_code == 405


def test_the_token_belongs_to_demo_with_any_password(anonymous: APIClient) -> None:
    demo = UserFactory.create(username="demo")
    demo.set_password("a password of my own")
    demo.save()
    access = json.loads(post("/token").content)["access"]
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {access}")
    placed = anonymous.post("/api/orders", {"items": [{"productId": 1, "quantity": 1, "price": 1}]}, format="json")
    assert (placed.status_code, placed.json()["userId"]) == (201, demo.pk)


def test_the_answer_without_the_account_names_a_remedy() -> None:
    response = post("/token")
    assert response.status_code == 409
    assert "The account demo does not exist" in json.loads(response.content)["detail"]
    UserFactory.create(username="demo", is_active=False)
    assert "The account demo is not active" in json.loads(post("/token").content)["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/state", None),
        ("/state", {"orders": [0]}),
        ("/state", {"orders": [2**63]}),
        ("/state", {"orders": ["1"]}),
        ("/state", {"orders": [1] * 1_001}),
        ("/switch", {}),
        ("/switch", {"target": "web", "on": False}),
        ("/switch", {"target": "broker", "on": "no"}),
    ],
)
def test_an_odd_body_is_refused(path: str, body: Any) -> None:
    assert post(path, body).status_code == 400


@pytest.mark.parametrize(("path", "body"), [("/state", {"orders": []}), ("/switch", {"target": "broker", "on": True})])
def test_a_run_that_does_not_answer_is_unavailable(settings: Settings, path: str, body: Any) -> None:
    settings.DEVSERVER_SOCKET = "/nowhere"
    response = post(path, body)
    assert response.status_code == 503
    assert "make run does not answer" in json.loads(response.content)["detail"]
