import re
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from orders.services import Line, place_order
from testkit.factories import NotificationFactory

pytestmark = pytest.mark.django_db


def cursor_of(response: Any) -> str:
    (cursor,) = re.findall(r"cursor=([^&>]+)", response["Link"])
    return cursor


def test_a_cursor_belongs_to_its_list(api: APIClient, user: User) -> None:
    for _ in range(3):
        place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
    NotificationFactory.create_batch(3, user_id=user.pk)
    lists = ("/api/orders", "/api/notifications")
    cursors = {path: cursor_of(api.get(f"{path}?limit=1")) for path in lists}
    for path in lists:
        statuses = {origin: api.get(f"{path}?cursor={cursor}").status_code for origin, cursor in cursors.items()}
        assert statuses == {origin: 200 if origin == path else 400 for origin in lists}
