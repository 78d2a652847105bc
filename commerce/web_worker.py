"""gunicorn's threaded worker, with connections spread over all workers of a server."""

import select
import time
from multiprocessing.sharedctypes import RawArray
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

SLOTS = 64
"""More than one server has workers at a time."""
NOBODY = -1
PATIENCE, STEP = 0.02, 0.001
"""Seconds that a new connection waits at most for a worker that has fewer, and between two looks."""
FORGIVENESS = 1.0
"""Seconds until a worker that took no connection, because it hangs, is waited for again."""
STAY_MS, GLANCE_MS = 20, 5
"""How long a thread waits for the next request of its connection, and between two looks whether another needs it."""


class FairWorker(ThreadWorker):
    """Leaves a new connection to a worker that has fewer.

    All workers listen on one socket, and whoever wakes up first takes what is there: of eight kept-alive connections
    that come at once, one of two workers often got seven or all, with a processor idle beside it.

    And while no connection waits for a thread, one that has answered waits a moment for what its client asks next,
    instead of handing the connection to the main thread, which hands it back.
    """

    connections = RawArray("i", [NOBODY] * SLOTS)
    """How many each worker has, while it takes more; made before they are forked, so that all share it."""
    _accepting = False

    def __init__(self, age: int, *args: Any, **kwargs: Any) -> None:
        self._slot = age % SLOTS
        self._fewest, self._gives_way_since = 0, 0.0
        super().__init__(age, *args, **kwargs)

    @property
    def nr_conns(self) -> int:
        return self._nr_conns

    @nr_conns.setter
    def nr_conns(self, number: int) -> None:
        self._nr_conns = number
        if self._accepting:
            self.connections[self._slot] = number

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - as the worker it extends has it
        super().set_accept_enabled(enabled)
        self.connections[self._slot] = self.nr_conns if enabled else NOBODY

    def handle(self, conn: Any) -> Any:
        kept = super().handle(conn)
        while kept is True and self._asks_again(conn):
            kept = super().handle(conn)
        return kept

    def _asks_again(self, conn: Any) -> bool:
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        waited = 0
        while waited < STAY_MS and self._has_a_thread_for_each() and self.alive:
            if poll.poll(GLANCE_MS):
                return True
            waited += GLANCE_MS
        return False

    def _has_a_thread_for_each(self) -> bool:
        """Idle connections need none."""
        idle = len(self.keepalived_conns) + len(self.pending_conns)
        return self.nr_conns - idle <= self.cfg.threads

    def forget(self) -> None:
        """Called in the server when this worker has ended: nobody waits for it any longer."""
        self.connections[self._slot] = NOBODY

    def accept(self, listener: Any) -> None:
        if self._gives_way():
            time.sleep(STEP)
        else:
            super().accept(listener)

    def _gives_way(self) -> bool:
        fewest = min((number for number in self.connections if number != NOBODY), default=self.nr_conns)
        if self.nr_conns <= fewest:
            # The next burst is worth the whole patience again, however soon it comes.
            self._fewest = NOBODY
            return False
        now = time.monotonic()
        if fewest != self._fewest or now - self._gives_way_since > FORGIVENESS:
            self._fewest, self._gives_way_since = fewest, now
        return now - self._gives_way_since < PATIENCE
