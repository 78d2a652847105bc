"""Fixtures for the tests of sales."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from rest_framework.test import APIClient

from testkit.factories import UserFactory

Sales = Callable[..., Any]
"""A function that returns the JSON of `GET /api/sales`. Its parameter `since` is the parameter `from` of the query."""


@pytest.fixture
def staff(db: None) -> APIClient:
    """Return an API client of a member of staff who may see the sales."""
    user = UserFactory.create(is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_salesbucket"))
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.fixture
def sales(staff: APIClient) -> Sales:
    def sales(since: str, to: str, interval: str = "minute") -> Any:
        answer = staff.get("/api/sales", {"from": since, "to": to, "interval": interval})
        assert answer.status_code == 200, answer.content
        return answer.json()

    return sales
