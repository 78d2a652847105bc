"""Orders are placed with prepared statements, even while a migration changes the tables of these statements."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from rest_framework.test import APIClient

from commerce.accounts.tokens import AccessToken
from events.models import OutboxEvent
from orders.models import Order

pytestmark = pytest.mark.django_db(transaction=True)

BODY = {
    "items": [{"productId": 2**63 - 1, "quantity": 2, "price": 100.25}, {"productId": 1, "quantity": 1, "price": 0}]
}


@pytest.fixture(autouse=True)
def _own_connection() -> Iterator[None]:
    connection.close()
    yield
    connection.close()


def client_of(user: User) -> APIClient:
    return APIClient(headers={"Authorization": f"Bearer {AccessToken.for_user(user)}"})


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def place(client: APIClient) -> int:
    """Place an order, check its rows, and return the number of prepared statements of the database connection."""
    response = client.post("/api/orders", BODY, format="json")
    assert response.status_code == 201, response.content
    order = Order.objects.get(pk=response.json()["id"])
    assert [item["id"] for item in response.json()["items"]] == [item.pk for item in order.items.order_by("pk")]
    assert [item.product_id for item in order.items.order_by("pk")] == [2**63 - 1, 1]
    assert OutboxEvent.objects.filter(stream=order.stream).exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        return int(cursor.fetchone()[0])


def test_a_request_executes_two_prepared_statements(user: User, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(user)
    assert [place(client) for _ in range(3)] == [2, 2, 2]
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (
            "ALTER TABLE auth_user ALTER username TYPE varchar(200)",
            "ALTER TABLE auth_user ALTER username TYPE varchar(150)",
        ),
        (
            "ALTER TABLE orders_orderitem ALTER quantity TYPE bigint",
            "ALTER TABLE orders_orderitem ALTER quantity TYPE integer",
        ),
        ("ALTER TABLE orders_order ALTER status TYPE text", "ALTER TABLE orders_order ALTER status TYPE varchar(9)"),
        (
            "ALTER TABLE events_outboxevent ALTER topic TYPE text",
            "ALTER TABLE events_outboxevent ALTER topic TYPE varchar(249)",
        ),
        ("CREATE INDEX trial ON events_outboxevent (topic)", "DROP INDEX trial"),
        ("ALTER TABLE orders_order ADD trial text", "ALTER TABLE orders_order DROP trial"),
        ("DISCARD ALL", "SELECT 1"),
    ],
)
def test_orders_are_placed_while_the_schema_changes(user: User, change: str, undo: str) -> None:
    client = client_of(user)
    for _ in range(6):
        place(client)
    run(change)
    try:
        place(client)
        place(client)
    finally:
        run(undo)
    place(client)


@pytest.mark.parametrize("number", [10**17, "123456789012345678"])
def test_a_token_of_an_unknown_large_id_is_refused(user: User, number: int | str) -> None:
    token = AccessToken.for_user(user)
    token["user_id"] = number
    client = APIClient(headers={"Authorization": f"Bearer {token}"})
    assert client.post("/api/orders", BODY, format="json").status_code == 401


def test_an_order_of_a_hundred_items_keeps_their_sequence(user: User) -> None:
    items = [{"productId": number, "quantity": 1, "price": 1} for number in range(100, 0, -1)]
    answer = client_of(user).post(
        "/api/orders", {"items": items}, format="json", headers={"Idempotency-Key": str(uuid4())}
    )
    placed = answer.json()["items"]
    assert [item["productId"] for item in placed] == list(range(100, 0, -1))
    assert [item["id"] for item in placed] == sorted(item["id"] for item in placed)
