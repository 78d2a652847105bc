import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks
from rest_framework.test import APIClient

from events.models import OutboxEvent
from events.outbox.publisher import RecordingPublisher
from events.wire.headers import unpack
from orders.models import Order
from orders.services import Line, pay_order, place_order
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

ITEM = {"productId": 1, "quantity": 2, "price": 100.00}


def place(api: APIClient, **item: Any) -> Any:
    return post(api, json.dumps({"items": [ITEM | item]}))


def post(api: APIClient, body: str | bytes, content_type: str = "application/json") -> Any:
    return api.post("/api/orders", body, content_type=content_type)


def order_of(user: User) -> Order:
    return place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order


def test_placing_an_order_answers_it_with_exact_amounts(api: APIClient, user: User) -> None:
    response = place(api)
    assert response.status_code == 201
    assert response["Content-Type"] == "application/json"
    order = Order.objects.get()
    assert response["Location"] == f"/api/orders/{order.pk}"
    created_at = json.loads(response.content)["createdAt"]
    assert datetime.fromisoformat(created_at) == order.created_at
    assert len(created_at) == len("2025-01-30T10:15:30.123Z")
    assert response.content.decode() == (
        f'{{"id":{order.pk},"userId":{user.pk},"totalAmount":200.00,"status":"PENDING","createdAt":"{created_at}",'
        f'"items":[{{"id":{order.items.get().pk},"productId":1,"quantity":2,"price":100.00}}]}}'
    )


def test_the_event_is_published_after_the_commit_and_not_before(
    api: APIClient,
    publisher: RecordingPublisher,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with django_capture_on_commit_callbacks() as callbacks:
        place(api)
        assert publisher.published == []
    for callback in callbacks:
        callback()
    assert [event.event_type for event in publisher.published] == ["ORDER_CREATED"]


def test_a_publisher_that_fails_does_not_fail_the_request(
    api: APIClient,
    publisher: RecordingPublisher,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    def fail(rows: object) -> None:
        raise RuntimeError("no publisher")

    monkeypatch.setattr(publisher, "publish", fail)
    with django_capture_on_commit_callbacks(execute=True):
        assert place(api).status_code == 201


def test_the_event_carries_the_requests_trace(api: APIClient) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    api.post(
        "/api/orders", json.dumps({"items": [ITEM]}), content_type="application/json", headers={"traceparent": trace}
    )
    headers = dict(unpack(OutboxEvent.objects.get().headers))
    assert headers["traceparent"] == trace.encode()


def test_paying_and_cancelling_answer_the_changed_order(api: APIClient, user: User) -> None:
    order = order_of(user)
    paid = api.post(f"/api/orders/{order.pk}/pay", b"anything at all", content_type="text/plain")
    assert (paid.status_code, paid.json()["status"]) == (200, "PAID")
    cancelled = api.post(f"/api/orders/{order.pk}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")


def test_an_impossible_transition_is_a_conflict(api: APIClient, user: User) -> None:
    order = order_of(user)
    api.post(f"/api/orders/{order.pk}/cancel")
    response = api.post(f"/api/orders/{order.pk}/pay")
    assert response.status_code == 409
    assert response["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": f"Order {order.pk} is CANCELLED and cannot become PAID.",
    }


def test_an_order_of_another_user_is_not_found(api: APIClient) -> None:
    order = order_of(UserFactory.create())
    known = {("get", ""), ("post", "/pay"), ("post", "/cancel"), ("get", "/events")}
    for path in ("", "/pay", "/cancel", "/events"):
        for method in ("get", "post", "put", "patch", "delete", "options"):
            response = getattr(api, method)(f"/api/orders/{order.pk}{path}")
            assert response.status_code == (404 if (method, path) in known else 405), (method, path)
            assert response["Content-Type"] == "application/problem+json"
    assert api.get("/api/orders").json() == []
    assert Order.objects.get().status == Order.Status.PENDING


@pytest.mark.parametrize(
    "path", ["/api/orders/99999999999999999999999", "/api/orders/abc", "/api/orders/1%00", "/api/orders/١"]
)
def test_an_unknown_order_id_is_not_found(api: APIClient, path: str) -> None:
    response = api.get(path)
    assert response.status_code == 404
    assert response["Content-Type"] == "application/problem+json"


def test_a_request_without_a_token_is_unauthorized(anonymous: APIClient) -> None:
    response = place(anonymous)
    assert response.status_code == 401
    assert response["Content-Type"] == "application/problem+json"
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("item", "pointer"),
    [
        ({"quantity": 0}, "/items/0/quantity"),
        ({"quantity": 1_000_001}, "/items/0/quantity"),
        ({"quantity": 1.5}, "/items/0/quantity"),
        ({"quantity": "2"}, "/items/0/quantity"),
        ({"quantity": True}, "/items/0/quantity"),
        ({"quantity": None}, "/items/0/quantity"),
        ({"productId": 0}, "/items/0/productId"),
        ({"productId": 2**63}, "/items/0/productId"),
        ({"price": -0.01}, "/items/0/price"),
        ({"price": 0.001}, "/items/0/price"),
        ({"price": 10_000_000_000}, "/items/0/price"),
        ({"price": "1"}, "/items/0/price"),
        ({"price": False}, "/items/0/price"),
        ({"price": []}, "/items/0/price"),
    ],
)
def test_an_invalid_item_is_refused_with_its_pointer(api: APIClient, item: dict[str, Any], pointer: str) -> None:
    response = place(api, **item)
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert not Order.objects.exists()


@pytest.mark.parametrize("literal", ["1e400", "1e999999999", "-1e999999999", "9" * 5000])
@pytest.mark.parametrize("field", ["productId", "quantity", "price"])
def test_a_number_of_any_size_is_refused_without_computing_it(api: APIClient, field: str, literal: str) -> None:
    body = json.dumps({"items": [ITEM | {field: "@"}]}).replace('"@"', literal)
    assert post(api, body).status_code == 400


@pytest.mark.parametrize(
    ("field", "literal", "value"),
    [
        ("quantity", "2.0", 2),
        ("quantity", "1e2", 100),
        ("price", "1e2", "100.00"),
        ("price", "1.500", "1.50"),
        ("price", "9999999999.99", "9999999999.99"),
        ("price", "0", "0.00"),
        ("price", "-0.0", "0.00"),
        ("price", "0e400", "0.00"),
        ("productId", str(2**63 - 1), 2**63 - 1),
    ],
)
def test_any_spelling_of_a_valid_number_is_accepted(api: APIClient, field: str, literal: str, value: object) -> None:
    body = json.dumps({"items": [ITEM | {field: "@"}]}).replace('"@"', literal)
    response = post(api, body)
    assert response.status_code == 201
    assert f'"{field}":{value}' in response.content.decode()


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "[]", "null", '"text"', "{}", '{"items":[]}', '{"items":{}}', '{"items":null}', '{"items":[1]}'),
        *('{"items":[NaN]}', '{"items":"\\ud800"}', "[" * 10_000, json.dumps({"items": [ITEM] * 101})),
        b'{"items":"\xff"}',
    ],
)
def test_a_body_that_is_not_an_order_is_refused(api: APIClient, body: str | bytes) -> None:
    response = post(api, body)
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


def test_a_hundred_items_are_accepted(api: APIClient) -> None:
    assert post(api, json.dumps({"items": [ITEM] * 100})).status_code == 201


def test_only_json_is_accepted(api: APIClient) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = post(api, "items=1", content_type)
        assert response.status_code == 415
        assert response["Content-Type"] == "application/problem+json"


def test_a_body_above_the_limit_is_refused(api: APIClient) -> None:
    response = post(api, " " * 256 * 1024 + json.dumps({"items": [ITEM]}))
    assert response.status_code == 413
    assert response["Content-Type"] == "application/problem+json"


def test_unknown_fields_never_set_anything(api: APIClient, user: User) -> None:
    forged = {"id": 77, "userId": user.pk + 1, "status": "PAID", "totalAmount": 0, "createdAt": "2000-01-01T00:00:00Z"}
    response = post(api, json.dumps({"items": [ITEM | {"id": 5, "order": 6}]} | forged))
    assert response.status_code == 201
    order = Order.objects.get()
    assert (order.user_id, order.status, order.total_amount) == (user.pk, "PENDING", Decimal("200.00"))
    assert order.created_at.year > 2000
    assert order.pk != 77


def test_a_method_that_a_path_does_not_have_is_refused(api: APIClient, user: User) -> None:
    order = order_of(user)
    for method, path in [
        ("delete", f"/api/orders/{order.pk}"),
        ("put", "/api/orders"),
        ("get", f"/api/orders/{order.pk}/pay"),
    ]:
        response = getattr(api, method)(path)
        assert response.status_code == 405
        assert response["Content-Type"] == "application/problem+json"


def test_orders_are_listed_newest_first_page_by_page(api: APIClient, user: User) -> None:
    orders = [order_of(user) for _ in range(5)]
    pages = []
    url = "/api/orders?limit=2"
    while url:
        response = api.get(url)
        pages.append([order["id"] for order in response.json()])
        # An order that is placed between two pages neither repeats nor hides another one.
        order_of(user)
        url = response["Link"].split(">")[0].removeprefix("<") if "Link" in response else ""
    newest_first = [order.pk for order in reversed(orders)]
    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:]]


def test_the_next_page_is_in_the_link_header(api: APIClient, user: User) -> None:
    order_of(user)
    order_of(user)
    assert "Link" not in api.get("/api/orders?limit=2")
    link = api.get("/api/orders?limit=1")["Link"]
    assert link.startswith("<http://testserver/api/orders?")
    assert link.endswith('>; rel="next"')


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=abc", "limit=1.5", "limit=", "limit=١", "cursor=abc", "cursor=MQ:forged"]
)
def test_a_bad_page_is_refused(api: APIClient, query: str) -> None:
    response = api.get(f"/api/orders?{query}")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


def test_a_limit_above_the_largest_is_the_largest(api: APIClient) -> None:
    for limit in ("201", "1000000000", "9" * 5000):
        assert api.get(f"/api/orders?limit={limit}").status_code == 200


def test_a_longer_list_takes_the_same_number_of_queries(
    api: APIClient, user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(3):
        order_of(user)
    with django_assert_num_queries(2):
        assert len(api.get("/api/orders").json()) == 3


def listed(api: APIClient, **query: str) -> list[int]:
    response = api.get("/api/orders", query)
    assert response.status_code == 200, response.content
    return [order["id"] for order in response.json()]


def test_orders_are_filtered_by_status(api: APIClient, user: User) -> None:
    pending, paid = order_of(user), order_of(user)
    pay_order(order_id=paid.pk)
    assert listed(api, status="PENDING") == [pending.pk]
    assert listed(api, status="PAID") == [paid.pk]
    assert listed(api, status="CANCELLED") == []


def test_orders_are_filtered_by_a_half_open_time_range(api: APIClient, user: User) -> None:
    first, second, third = orders = [order_of(user) for _ in range(3)]
    for order, second_of_minute in zip(orders, (29, 30, 31), strict=True):
        moment = datetime(2025, 1, 30, 10, 15, second_of_minute, 123000, tzinfo=UTC)
        Order.objects.filter(pk=order.pk).update(created_at=moment)
    assert listed(api, createdAfter="2025-01-30T10:15:30.123Z") == [third.pk, second.pk]
    assert listed(api, createdBefore="2025-01-30T10:15:30.123Z") == [first.pk]
    assert listed(api, createdBefore="2025-01-29T10:16:31-23:59") == [second.pk, first.pk]
    assert listed(api, createdAfter="2025-01-30T19:15:30.123+09:00", createdBefore="2025-01-30T10:15:31Z") == [
        second.pk
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("status", bad) for bad in ("", "paid", "PAID,PENDING", "\0")),
        *(("createdAfter", bad) for bad in ("", "yesterday", "1738232130", "2025-01-30", "2025-01-30T10:15:30")),
        ("createdBefore", "2025-01-30T10:15:30 09:00"),
        ("createdBefore", "9999-12-31T23:59:59-23:59"),
    ],
)
def test_a_bad_filter_is_refused_with_its_name(api: APIClient, name: str, value: str) -> None:
    response = api.get("/api/orders", {name: value})
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in response.json()["errors"]] == [f"/{name}"]


@pytest.mark.parametrize("value", ["2016-12-31T23:59:60Z", "2017-01-01T08:59:60.5+09:00", "2016-12-31t23:59:60z"])
@pytest.mark.parametrize("name", ["createdAfter", "createdBefore"])
def test_a_leap_second_is_refused_as_such(api: APIClient, name: str, value: str) -> None:
    response = api.get("/api/orders", {name: value})
    assert response.status_code == 400
    assert response.json()["errors"] == [{"pointer": f"/{name}", "detail": "The second 60 is not taken: write 59."}]


def test_the_next_page_keeps_filters_while_orders_arrive(api: APIClient, user: User) -> None:
    orders = [order_of(user) for _ in range(4)]
    pay_order(order_id=orders[2].pk)
    since = "2020-01-01T00:00:00+09:00"
    first = api.get("/api/orders", {"status": "PENDING", "createdAfter": since, "limit": "2"})
    order_of(user)
    second = api.get(first["Link"].split(">")[0].removeprefix("<"))
    assert [order["id"] for order in first.json()] == [orders[3].pk, orders[1].pk]
    assert [order["id"] for order in second.json()] == [orders[0].pk]


def test_a_filtered_list_reads_the_callers_orders_by_index(user: User) -> None:
    # Among a few rows PostgreSQL walks any index, as its statistics of the moment happen to be.
    customers = [user, *UserFactory.create_batch(9)]
    Order.objects.bulk_create(Order(user=customers[number % 10], total_amount=1) for number in range(3000))
    since = datetime(2020, 1, 1, tzinfo=UTC)
    wanted = Order.objects.filter(user=user, status="PAID", created_at__gte=since).order_by("-id")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
        cursor.execute("ANALYZE orders_order")
    plan = wanted[:51].explain()
    assert "order_of_user_newest_first" in plan
    assert "Sort" not in plan


def test_filters_do_not_apply_to_a_single_order(api: APIClient, user: User) -> None:
    assert api.get(f"/api/orders/{order_of(user).pk}?status=CANCELLED").status_code == 200
