"""A watchdog for calls that may never return: the Kafka client's `poll` spins forever after some errors."""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

CHECKS_PER_LIMIT = 20
"""Number of checks within the time limit of a guarded call.

The watchdog counts its checks instead of reading a clock, because a clock goes on while the process is frozen.
"""


class Watchdog:
    """Ends the process with exit code 1 if a guarded call takes longer than `limit` seconds. Stack traces go to stderr.

    Only one call may be guarded at a time, because overlapping calls are not watched.
    """

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
        while ticks < CHECKS_PER_LIMIT:
            time.sleep(self._limit / CHECKS_PER_LIMIT)
            ticks = ticks + 1 if self._calls == seen and seen % 2 else 0
            seen = self._calls
        logger.critical("%s has not returned for %g s: ending with exit code 1. Stacks follow", self._what, self._limit)
        faulthandler.dump_traceback()
        os._exit(1)
