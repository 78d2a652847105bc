"""A client that does not ask for HTML gets every error as a JSON problem."""

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def test_an_unknown_path_is_a_problem(client: Client) -> None:
    for path in ("/api/nothing", "/nothing"):
        response = client.get(path)
        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("post", "/api/nothing", 404),
        ("post", "/api/orders/", 404),
        ("delete", "/api/auth/token/", 404),
        ("post", "/nothing", 404),
        ("post", "/health/live", 405),
        ("delete", "/health/ready", 405),
    ],
)
def test_a_client_without_a_csrf_token_gets_problems(method: str, path: str, status: int) -> None:
    response = getattr(Client(enforce_csrf_checks=True), method)(path)
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"


def test_the_answer_is_json_for_every_accept_header(client: Client) -> None:
    response = client.get("/api/orders", headers={"accept": "application/problem+json"})
    assert (response.status_code, response["Content-Type"]) == (401, "application/problem+json")
