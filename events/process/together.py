"""Several loops in one process, each in a thread of its own."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from django.db import connections

from events.process.shutdown import GRACE_S, Shutdown

logger = logging.getLogger(__name__)


def run_together(loops: Mapping[str, Callable[[], None]], *, shutdown: Shutdown) -> None:
    """Run the loops until all have ended. If one fails, ask for the shutdown of the others, and raise its error.

    If the others have not ended `GRACE_S` seconds later, log the error, and end the process. The exit code is the
    error's `returncode`, or 1 if it has none. A single loop runs in the calling thread.
    """
    if len(loops) == 1:
        (loop,) = loops.values()
        loop()
        return
    failures: list[BaseException] = []
    overdue = threading.Timer(GRACE_S, _end_process, [failures])
    overdue.daemon = True
    with ThreadPoolExecutor(len(loops)) as threads:
        for ended in as_completed([threads.submit(_run_in_thread, name, loop) for name, loop in loops.items()]):
            if failure := ended.exception():
                failures.append(failure)
                shutdown.request()
                if len(failures) == 1:
                    overdue.start()
    overdue.cancel()
    if failures:
        raise failures[0]


def _end_process(failures: Sequence[BaseException]) -> None:
    first = failures[0]
    consequence = "Not all loops have ended %d s after one failed: the next process repeats uncommitted work"
    logger.error(consequence, GRACE_S, exc_info=first)
    os._exit(getattr(first, "returncode", 1))


def _run_in_thread(name: str, loop: Callable[[], None]) -> None:
    threading.current_thread().name = name
    try:
        loop()
    finally:
        connections.close_all()


class Heartbeats:
    """Calls the function `beat` each time `beat_of` has been called for every member since the previous beat.

    So a single member that hangs stops the beats.
    """

    def __init__(self, beat: Callable[[], None], members: Iterable[str]) -> None:
        self._beat = beat
        self._members = set(members)
        self._awaited = set(self._members)
        self._lock = threading.Lock()

    def beat_of(self, member: str) -> None:
        with self._lock:
            self._awaited.discard(member)
            self._beat_if_complete()

    def leave(self, member: str) -> None:
        """Stop waiting for `member`, because its loop has ended."""
        with self._lock:
            self._members.discard(member)
            self._awaited.discard(member)
            self._beat_if_complete()

    def _beat_if_complete(self) -> None:
        if not self._awaited:
            self._beat()
            self._awaited = set(self._members)
