"""The worker: claim work, do it outside of any transaction, record the outcome with what follows from it."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from functools import partial
from typing import Generic
from uuid import uuid4

from django.db import Error, connection, reset_queries, transaction

from events.troubles import is_database_away
from events.wire.foreign_text import cut, storable
from events.work.kinds import LABELS, LOST, Act, Kind, Results, record_nothing
from events.work.leases import Settlement, claim, lease_of, settle
from events.work.models import LeasedWork, WorkT
from events.work.outcomes import Cancelled, Done, Failed, Outcome, ServiceUnavailable, TryAgain

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
"""Seconds between two claims while nothing is due. See `BUSY_POLL_INTERVAL_S` for kinds with several threads."""
BUSY_POLL_INTERVAL_S = 0.05
"""Seconds between two claims by a worker with several threads, if the first one left threads free. This applies for
`POLL_INTERVAL_S` after a claim that found work, so that work recorded soon after other work waits only a short time.
Gathering outcomes may add `events.work.threads.GATHER_S`."""
RECORD_WITHIN_S = 0.01
"""Seconds of work after which a worker without threads records the outcomes, so that quick pieces share a transaction.

After a crash, workers do the piece in progress again, and also the pieces whose outcomes were not yet recorded."""
RECORD_RETRY_S = 0.2
"""Seconds between two attempts to record outcomes while the database is away."""
CLAIM_AFTER_OUTAGE_S = 1.0
"""Seconds that a worker waits after the database is back, before it claims work. In this time other workers record
outcomes that the outage held up, even if their leases have run out."""
NOT_IN_TIME = "It was not done in time"
"""Reason that people read for work whose deadline has passed."""
FIRST_OUTAGE_PAUSE_S, LAST_OUTAGE_PAUSE_S = 1.0, 30.0
"""First and longest pause of a worker while a service or the database is away, in seconds. Each failure doubles the
pause. Half of it is random."""


class Worker(Generic[WorkT]):
    """Does the work of one kind. Any number of workers may run; each claims what the others have not claimed."""

    def __init__(self, kind: Kind[WorkT], *, stopping: Callable[[], bool], wait: Callable[[float], object]) -> None:
        """Create a worker. `wait` sleeps for a number of seconds, and ends early if the process must stop.

        `stopping` returns whether to end. It is called before each piece of work, and while the database is away.
        """
        self._kind = kind
        self._stopping = stopping
        self._wait = wait
        self._database_was_away = False

    def run(self) -> None:
        """Work until `stopping` returns True. While the database or the service is away, retry with backoff."""
        failures = 0
        while not self._stopping():
            reset_queries()  # With DEBUG on, Django keeps every statement.
            try:
                if self._database_was_away:
                    connection.ensure_connection()
                    self._database_was_away = False
                    self._wait(CLAIM_AFTER_OUTAGE_S)
                claimed, _ = self.work_off_batch()
            except (ServiceUnavailable, Error) as error:
                if isinstance(error, Error):
                    self._database_was_away = True
                    connection.close()
                pause = backoff(FIRST_OUTAGE_PAUSE_S, LAST_OUTAGE_PAUSE_S, failures)
                failures += 1
                logger.warning("No %s for %.1f s: %s", self._kind.name, pause, str(error).strip())
                self._wait(pause)
            else:
                failures = 0
                if not claimed:
                    self._wait(POLL_INTERVAL_S)

    def sweep(self, *, due_until: datetime) -> Results[WorkT]:
        """Try each piece of work that is due by `due_until` once, and return the recorded outcomes.

        The sweep ends early if the process must stop.

        Raises:
            ServiceUnavailable: the service is not available.
            django.db.Error: the database failed while a batch was claimed or the rest of it was given back, or an
                outcome could not be recorded although the database was there.
        """
        results: Results[WorkT] = []
        while not self._stopping():
            claimed, recorded = self.work_off_batch(due_until=due_until)
            results += recorded
            if not claimed:
                break
        return results

    def work_off_batch(self, *, due_until: datetime | None = None) -> tuple[int, Results[WorkT]]:
        """Claim one batch of work, do it, and record the outcomes.

        With `due_until`, claim only work that was due by that time. Return the number of claimed rows, and the recorded
        outcomes. Claimed work that is not begun is given back. If the database is away when outcomes are to be
        recorded, this method waits for it.

        Raises:
            ServiceUnavailable: the service is not available.
            django.db.Error: the database failed while the batch was claimed or the rest of it was given back, or an
                outcome could not be recorded although the database was there.
        """
        kind, lease = self._kind, uuid4()
        last_start = time.monotonic() + kind.lease_s - kind.action_s
        batch = claim(kind.model, lease=lease, seconds=kind.lease_s, limit=kind.batch_size, due_until=due_until)
        self._note_refusals(batch)
        # A piece that kills its worker comes back with its batch. Because the order is random, each other piece is done
        # before it in one batch or another.
        batch.sort(key=lambda work: (work.attempts, random.random()))  # noqa: S311
        claimed = len(batch)
        recorded: Results[WorkT] = []
        unrecorded: Results[WorkT] = []
        outage: ServiceUnavailable | None = None
        try:
            with kind.session() as act:
                begun = time.monotonic()
                while batch and outage is None and not self._stopping() and time.monotonic() < last_start:
                    work = batch.pop(0)
                    try:
                        unrecorded.append((work, self._do(act, work)))
                    except ServiceUnavailable as error:
                        unrecorded.append((work, TryAgain(str(error))))
                        outage = error
                    if time.monotonic() - begun > RECORD_WITHIN_S:
                        recorded += self._record(unrecorded)
                        unrecorded, begun = [], time.monotonic()
                recorded += self._record(unrecorded)
        finally:
            if batch:
                self._give_back(batch)
        if outage:
            raise outage
        return claimed, recorded

    def _note_refusals(self, claimed: Sequence[WorkT]) -> None:
        """Set `refusal` of each piece. If the database fails, try to give all of them back, and raise its error."""
        if not claimed:
            return
        try:
            reasons = self._kind.refuse(claimed)
        except Error:
            with suppress(Error):
                self._give_back(claimed)
            raise
        for work in claimed:
            work.refusal = reasons.get(work.pk, "")

    def _do(self, act: Act[WorkT], work: WorkT) -> Outcome:
        if work.refusal:
            return Failed(work.refusal)
        if work.is_overdue:
            return Failed(work.last_error or _why_overdue(work), NOT_IN_TIME)
        try:
            return act(work)
        except ServiceUnavailable:
            raise
        except Exception as error:
            if is_database_away(error):
                connection.close()
                raise ServiceUnavailable(f"The database failed: {str(error).strip()}") from error
            logger.exception("An attempt at %s %s failed", self._kind.name, work.pk)
            return TryAgain(f"{type(error).__name__}: {error}")

    def _give_back(self, works: Collection[WorkT]) -> None:
        """Make claimed work that was not tried pending again. It is due at the same time as before the claim."""
        settle(self._kind.model, [_given_back(work) for work in works])

    def _record(self, results: Results[WorkT]) -> Results[WorkT]:
        """Record the outcomes, and return those whose row still had the lease. Wait while the database is away.

        If what follows from an outcome cannot be recorded, record and return a `TryAgain` in its place. Raise the error
        if this fails, too.
        """
        record, failure = self._kind.record, None
        while results:
            try:
                return self._record_once(results, record)
            except Exception as error:
                if is_database_away(error):
                    logger.warning("Recording %s again: %s", self._kind.name, str(error).strip())
                    connection.close()
                    self._database_was_away = True
                    # This call shows that the process is alive. If its supervisor killed it, the pieces would be done
                    # again.
                    self._stopping()
                    time.sleep(RECORD_RETRY_S)
                elif len(results) > 1:
                    return [recorded for one in results for recorded in self._record([one])]
                elif failure:
                    raise
                else:
                    ((work, _),) = results
                    failure = TryAgain(f"What follows from it cannot be recorded: {error}")
                    logger.exception("What follows from %s %s cannot be recorded", self._kind.name, work.pk)
                    results, record = [(work, failure)], record_nothing
        return []

    def _record_once(self, results: Results[WorkT], record: Callable[[Results[WorkT]], None]) -> Results[WorkT]:
        kind = self._kind
        # If nothing follows from the outcomes, there is one statement, which is a transaction by itself.
        with nullcontext() if record is record_nothing else transaction.atomic():
            settled = settle(kind.model, [self._settlement(work, outcome) for work, outcome in results])
            recorded = [(work, outcome) for work, outcome in results if (work.pk, work.lease) in settled]
            record(recorded)
        for work, _ in results:
            if (work.pk, work.lease) not in settled:
                logger.warning("%s %s outlived its lease, so its outcome is not recorded", kind.name, work.pk)
        counts = Counter(LABELS[type(outcome)] for _, outcome in recorded)
        counts[LOST] = len(results) - len(recorded)
        for label, count in counts.items():
            kind.outcomes_total.labels(label).inc(count)
        return recorded

    def _settlement(self, work: WorkT, outcome: Outcome) -> Settlement:
        settlement = partial(Settlement, work.pk, lease_of(work))
        match outcome:
            case Done():
                return settlement(LeasedWork.State.DONE, error="")
            case Failed(reason, _):
                return settlement(LeasedWork.State.FAILED, error=cut(storable(reason)))
            case Cancelled(reason):
                return settlement(LeasedWork.State.CANCELLED, error=cut(storable(reason)))
            case TryAgain(reason):
                pause = backoff(self._kind.first_pause_s, self._kind.last_pause_s, work.attempts - 1)
                return settlement(LeasedWork.State.PENDING, error=cut(storable(reason)), pause_s=pause)


def _why_overdue(work: LeasedWork) -> str:
    """Return why overdue work without a recorded error was not done. `attempts` counts this claim, too."""
    if work.attempts == 1:
        return "Its deadline passed before the first attempt"
    return "Its deadline passed, and what became of the earlier attempts is not known: their workers were ended"


def _given_back(work: LeasedWork) -> Settlement:
    return Settlement(work.pk, lease_of(work), LeasedWork.State.PENDING, tried=False, due_at=work.was_due_at)


def backoff(first_s: float, last_s: float, failures: int) -> float:
    """Return the seconds to pause after a failure that followed `failures` others.

    The longest pause is `first_s` if there were no others. Each of them doubles it, up to `last_s`. Half of the pause
    is random, so that workers do not all retry at the same time.
    """
    return min(first_s * 2 ** min(failures, 30), last_s) * random.uniform(0.5, 1)  # noqa: S311
