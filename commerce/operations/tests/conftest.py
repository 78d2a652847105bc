"""Fixtures for the tests of operations."""

import pytest

from events import subscriptions
from notifications.subscriptions import NOTIFICATIONS


@pytest.fixture
def notifications_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let notifications be the only registered group. What holds for each group is tested with one."""
    monkeypatch.setattr(subscriptions, "_subscriptions", {NOTIFICATIONS.group: NOTIFICATIONS})
