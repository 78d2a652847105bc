"""Fixtures for the tests of operations."""

from collections.abc import Iterator

import pytest

from events import subscriptions
from notifications.subscriptions import NOTIFICATIONS


@pytest.fixture
def notifications_alone() -> Iterator[None]:
    """Let notifications be the only registered group. One group is enough to test what holds for each group."""
    # Not the fixture `monkeypatch`, which a test may undo.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscriptions, "_subscriptions", {NOTIFICATIONS.group: NOTIFICATIONS})
        yield
