"""Several loops in one process, each in a thread of its own."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed

from django.db import connections

from events.process.shutdown import Shutdown


def run_together(loops: Mapping[str, Callable[[], None]], *, shutdown: Shutdown) -> None:
    """Run the loops until all have ended. If one fails, ask for the shutdown of the others, and raise its error.

    A single loop runs in the calling thread.
    """
    if len(loops) == 1:
        (loop,) = loops.values()
        loop()
        return
    failures = []
    with ThreadPoolExecutor(len(loops)) as threads:
        for ended in as_completed([threads.submit(_run_in_thread, name, loop) for name, loop in loops.items()]):
            if failure := ended.exception():
                failures.append(failure)
                shutdown.request()
    if failures:
        raise failures[0]


def _run_in_thread(name: str, loop: Callable[[], None]) -> None:
    threading.current_thread().name = name
    try:
        loop()
    finally:
        connections.close_all()


class Heartbeats:
    """Calls `beat` each time all members have called `beat_of` again. One member that hangs stops the calls."""

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
