"""A request leaves no reference cycles, because the garbage collector runs seldom (`events/process/garbage.py`)."""

import gc
import json
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory
from rest_framework_simplejwt.tokens import AccessToken

from orders.services import Line, place_order

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/orders", {"items": [{"productId": 1, "quantity": 2, "price": 100}]}),
        ("POST", "/api/orders", {}),
        ("POST", "/api/orders/{order}/pay", None),
        ("GET", "/api/orders/{order}", None),
        ("GET", "/api/orders/{order}/events", None),
        ("GET", "/api/orders/0", None),
        ("POST", "/api/notifications/0/read", None),
    ],
)
def test_an_answered_request_leaves_no_garbage(method: str, path: str, body: Any, user: User) -> None:
    server, requests = WSGIHandler(), RequestFactory(SERVER_NAME="127.0.0.1")
    token = str(AccessToken.for_user(user))

    def ask() -> None:
        order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
        server.get_response(
            requests.generic(
                method,
                path.format(order=order.pk),
                json.dumps(body),
                "application/json",
                headers={"authorization": f"Bearer {token}"},
            )
        )

    ask()
    gc.collect()
    gc.disable()
    try:
        ask()
        assert gc.collect() == 0
    finally:
        gc.enable()
