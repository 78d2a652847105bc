"""The worker for kinds of work with a `concurrency` above 1. It does each piece of work in a thread of its own."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django.db import Error, connection, connections, reset_queries

from events.work.kinds import Act, Kind, Results
from events.work.leases import claim, lease_of
from events.work.models import WorkT
from events.work.outcomes import Outcome, ServiceUnavailable, TryAgain
from events.work.worker import (
    BUSY_POLL_INTERVAL_S,
    CLAIM_AFTER_OUTAGE_S,
    FIRST_OUTAGE_PAUSE_S,
    LAST_OUTAGE_PAUSE_S,
    POLL_INTERVAL_S,
    RECORD_RETRY_S,
    Worker,
    backoff,
)

logger = logging.getLogger(__name__)

GATHER_S = 0.05
"""Longest time, in seconds, from the end of a piece of work until its outcome is recorded, with those of pieces that
end meanwhile. The outcomes are recorded at once when no piece is in hand any more."""


class Ended(NamedTuple):
    """A piece of work whose thread has ended."""

    work: Any
    outcome: Outcome | ServiceUnavailable | None
    """The outcome or the service's error. None if the piece was not begun, because it could outlast its lease."""


def worker_of(kind: Kind[WorkT], *, stopping: Callable[[], bool], wait: Callable[[float], object]) -> Worker[WorkT]:
    """Return a worker that does `kind.concurrency` pieces of work at a time. See `Worker` for the parameters."""
    return (ThreadedWorker if kind.concurrency > 1 else Worker)(kind, stopping=stopping, wait=wait)


class ThreadedWorker(Worker[WorkT]):
    """Claims as many pieces of work as it has free threads, and begins each at once.

    A slow piece of work delays no other one. The thread that calls `run` claims the work and records the outcomes; the
    threads of the pieces do not use the database.
    """

    def __init__(self, kind: Kind[WorkT], *, stopping: Callable[[], bool], wait: Callable[[float], object]) -> None:
        super().__init__(kind, stopping=stopping, wait=wait)
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._in_hand: dict[tuple[int, UUID], float] = {}
        """End of the lease of each awaited piece of work, by primary key and lease. The clock is the monotonic one."""
        self._claim_from = 0.0
        """Time before which this worker claims no work, by the monotonic clock."""
        self._busy_until = 0.0
        """Time, by the monotonic clock, until which this worker claims work every `BUSY_POLL_INTERVAL_S` seconds."""
        self._paused_until = 0.0
        """End of the pause after the last failure, by the monotonic clock."""
        self._failures = 0
        """Number of consecutive failures of the service or the database."""

    def run(self) -> None:
        """Work until `stopping` returns True, and then finish the work in hand.

        After a failure of the database or the service, claim nothing during a pause. The pause grows with each further
        failure. Work in hand goes on.
        """
        with self._kind.session() as act:
            while (goes_on := not self._stopping()) or self._in_hand:
                reset_queries()  # With DEBUG on, Django keeps every statement.
                wait_s = POLL_INTERVAL_S
                if goes_on:
                    if time.monotonic() >= self._claim_from:
                        self._claim_or_pause(act)
                    if self._free:
                        wait_s = min(wait_s, max(self._claim_from - time.monotonic(), 0))
                try:
                    self._record_ended(wait_s)
                except Error as error:
                    self._pause_without_database(error)
                    time.sleep(RECORD_RETRY_S)

    def sweep(self, *, due_until: datetime) -> Results[WorkT]:
        results: Results[WorkT] = []
        failure: Exception | None = None
        is_exhausted = False
        with self._kind.session() as act:
            while (goes_on := not (is_exhausted or failure or self._stopping())) or self._in_hand:
                try:
                    if goes_on and self._free:
                        is_exhausted = not self._begin(act, limit=self._free, due_until=due_until)
                except Error as error:
                    failure = error
                try:
                    recorded, unavailable = self._record_ended(POLL_INTERVAL_S if self._in_hand else 0)
                except Error as error:
                    # One more attempt, after which the pieces are done again when their leases end.
                    if failure or self._stopping():
                        raise
                    failure = error
                    time.sleep(RECORD_RETRY_S)
                    continue
                results += recorded
                failure = failure or unavailable
        if failure:
            raise failure
        return results

    @property
    def _free(self) -> int:
        """Number of further pieces of work that may begin."""
        return self._kind.concurrency - len(self._in_hand)

    def _claim_or_pause(self, act: Act[WorkT]) -> None:
        try:
            if self._database_was_away:
                connection.ensure_connection()
                self._database_was_away = False
                self._claim_from = time.monotonic() + CLAIM_AFTER_OUTAGE_S
                return
            # After an outage, try one piece of work to find out whether the service is back.
            limit = min(self._free, 1) if self._failures else self._free
            begun = self._begin(act, limit=limit) if limit else 0
            now = time.monotonic()
            if begun:
                self._busy_until = now + POLL_INTERVAL_S
            if limit and (begun < limit or self._failures):
                is_busy = now < self._busy_until and not self._failures
                self._claim_from = now + (BUSY_POLL_INTERVAL_S if is_busy else POLL_INTERVAL_S)
        except Error as error:
            self._pause_without_database(error)

    def _pause_without_database(self, error: Error) -> None:
        self._database_was_away = True
        connection.close()
        self._pause(error)

    def _pause(self, error: Exception) -> None:
        """Begin a pause, in which the worker claims nothing.

        A call during a pause has no effect, so that pieces of work that fail together count once.
        """
        if time.monotonic() < self._paused_until:
            return
        pause = backoff(FIRST_OUTAGE_PAUSE_S, LAST_OUTAGE_PAUSE_S, self._failures)
        self._failures += 1
        self._claim_from = self._paused_until = time.monotonic() + pause
        logger.warning("No %s for %.1f s: %s", self._kind.name, pause, str(error).strip())

    def _begin(self, act: Act[WorkT], *, limit: int, due_until: datetime | None = None) -> int:
        """Claim at most `limit` pieces of due work, and begin each in a thread. Return their number.

        With `due_until`, claim only pieces that are due by that time.
        """
        kind, claimed_at = self._kind, time.monotonic()
        last_start = claimed_at + kind.lease_s - kind.action_s
        works = claim(kind.model, lease=uuid4(), seconds=kind.lease_s, limit=limit, due_until=due_until)
        self._note_refusals(works)
        for work in works:
            self._in_hand[work.pk, lease_of(work)] = claimed_at + kind.lease_s
            # The process does not wait for a daemon thread at its end.
            threading.Thread(
                target=self._do_in_thread, args=(act, work, last_start), name=f"{kind.name}-{work.pk}", daemon=True
            ).start()
        return len(works)

    def _do_in_thread(self, act: Act[WorkT], work: WorkT, last_start: float) -> None:
        outcome: Outcome | ServiceUnavailable | None = None
        try:
            if time.monotonic() < last_start:
                outcome = self._do(act, work)
        except ServiceUnavailable as error:
            outcome = error
        finally:
            connections.close_all()
            self._ended.put(Ended(work, outcome))

    def _record_ended(self, wait_s: float) -> tuple[Results[WorkT], ServiceUnavailable | None]:
        """Wait up to `wait_s` seconds for pieces of work to end, and record their outcomes.

        Return the recorded outcomes, and the error of a service that is not available. Raises django.db.Error if the
        outcomes cannot be recorded. The next call records them.
        """
        results: Results[WorkT] = []
        unavailable: ServiceUnavailable | None = None
        untried: list[WorkT] = []
        ended = self._next_ended(wait_s)
        for work, outcome in ended:
            match outcome:
                case None:
                    untried.append(work)
                case ServiceUnavailable():
                    unavailable = outcome
                    results.append((work, TryAgain(str(outcome))))
                case _:
                    results.append((work, outcome))
        if unavailable:
            self._pause(unavailable)
        elif results:
            self._failures = 0
        recorded = self._record_or_keep(results, ended)
        if untried:
            try:
                self._give_back(untried)
            except Error as error:
                # These pieces are due again when their leases end.
                self._pause_without_database(error)
        self._forget_lost()
        return recorded, unavailable

    def _record_or_keep(self, results: Results[WorkT], ended: list[Ended]) -> Results[WorkT]:
        """Record `results`, the outcomes of `ended`, and return the recorded ones.

        After a database error that `_record` cannot handle, put `ended` back into the queue, and raise the error.
        """
        try:
            recorded = self._record(results)
        except Error:
            for one in ended:
                self._ended.put(one)
            self._forget_lost()
            raise
        for work, _ in ended:
            self._in_hand.pop((work.pk, lease_of(work)), None)
        return recorded

    def _next_ended(self, wait_s: float) -> list[Ended]:
        """Wait up to `wait_s` seconds until a piece of work ends. Return it with those that end soon after it."""
        ended: list[Ended] = []
        try:
            ended.append(self._ended.get(timeout=wait_s))
            until = time.monotonic() + GATHER_S
            while len(ended) < len(self._in_hand):
                ended.append(self._ended.get(timeout=max(until - time.monotonic(), 0)))
        except queue.Empty:
            pass
        return ended

    def _forget_lost(self) -> None:
        """Stop waiting for pieces whose lease has ended, because another worker may have claimed them."""
        now = time.monotonic()
        for key in [key for key, ends_at in self._in_hand.items() if ends_at < now]:
            del self._in_hand[key]
            logger.warning("%s %s takes longer than its lease", self._kind.name, key[0])
