"""Waiting for a condition with a deadline, instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import connection

Result = TypeVar("Result")

FIRST_PAUSE_S = 0.01
LAST_PAUSE_S = 0.1
"""Longest pause between two checks, in seconds. A check may cost the tested processes as much CPU as their work."""


def wait_until(condition: Callable[[], Result], *, timeout: float = 60) -> Result:
    """Return the condition's first true result. Raises TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE_S
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(pause)
        pause = min(pause * 1.2, LAST_PAUSE_S)
    raise TimeoutError(f"{getattr(condition, '__name__', condition)} did not come true within {timeout} s")


def a_lock_is_awaited() -> bool:
    """Return whether a transaction in the database server waits for a lock."""
    with connection.cursor() as cursor:
        # Not pg_stat_activity, which a transaction reads only once.
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])
