"""A process whose clock is wrong."""

from datetime import datetime, timedelta, tzinfo

import pytest

from events.wire import timestamps


def shift_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let `events.wire.timestamps.now` return the current time plus `by`. The database's clock stays right."""

    class WrongClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "datetime":  # type: ignore[override]
            return datetime.now(tz) + by

    monkeypatch.setattr(timestamps, "datetime", WrongClock)
