"""A watchdog for calls that should return and may not: the client's `poll` spins for ever after some errors."""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

TICKS = 20
"""Looks within the time allowed. Counted instead of asking the clock, which goes on while a process is frozen."""


class Watchdog:
    """Ends the process with 1, its stacks on stderr, when what it guards does not return within `limit` seconds."""

    def __init__(self, *, what: str, limit: float) -> None:
        self._what = what
        self._limit = limit
        self._calls = 0  # Odd while a call runs.
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def guard(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls += 1

    def _watch(self) -> None:
        seen, ticks = 0, 0
        while ticks < TICKS:
            time.sleep(self._limit / TICKS)
            ticks = ticks + 1 if self._calls == seen and seen % 2 else 0
            seen = self._calls
        logger.critical("%s has not returned for %g s: ending with 1. Stacks follow", self._what, self._limit)
        faulthandler.dump_traceback()
        os._exit(1)
