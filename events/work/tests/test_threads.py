"""The worker that does several pieces of work at a time.

No piece waits for a slow one, and no failure of the database loses an outcome.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connection

from events.database_clock import database_now
from events.work import threads as threads_module
from events.work import worker as worker_module
from events.work.leases import claim, settle
from events.work.models import LeasedWork
from events.work.outcomes import Cancelled, Done, Failed, Outcome, ServiceUnavailable, TryAgain
from events.work.threads import ThreadedWorker, worker_of
from events.work.worker import Worker
from testkit.mail.work import Work, kind, record_work
from testkit.waiting import wait_until

# The worker claims and records with the test's connection, in the test's thread or in one of its own.
pytestmark = pytest.mark.django_db(transaction=True)

State = LeasedWork.State
CONCURRENCY = 4
LONG_S = 30.0
"""Longest time that a test waits for an expected state, in seconds."""


def threaded(act: Callable[[Work], Outcome] | None = None, *, until: Callable[[], bool], **changes: Any) -> Any:
    return worker_of(
        kind(act, **({"concurrency": CONCURRENCY} | changes)), stopping=until, wait=lambda _: pytest.fail("It waited")
    )


def states(works: list[Work]) -> list[str]:
    rows = Work.objects.in_bulk([one.pk for one in works])
    return [rows[one.pk].state for one in works]


def done() -> int:
    return Work.objects.filter(state=State.DONE).count()


def all_ended() -> bool:
    return not Work.objects.filter(state=State.PENDING).exists()


@contextmanager
def running(worker: Worker[Work], stop: threading.Event) -> Iterator[threading.Thread]:
    """Run the worker in a thread with a database connection of its own, and stop it at the end."""

    def run() -> None:
        try:
            worker.run()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(LONG_S)
        assert not thread.is_alive()


def test_a_kind_with_concurrency_gets_a_worker_with_threads() -> None:
    assert type(threaded(until=lambda: True)) is ThreadedWorker
    assert type(threaded(until=lambda: True, concurrency=1)) is Worker


def test_as_many_pieces_run_at_a_time_as_the_kind_says() -> None:
    record_work(3 * CONCURRENCY)
    running_now, most = 0, 0
    lock = threading.Lock()
    together = threading.Barrier(CONCURRENCY)

    def act(work: Work) -> Outcome:
        nonlocal running_now, most
        with lock:
            running_now += 1
            most = max(most, running_now)
        together.wait(LONG_S)
        with lock:
            running_now -= 1
        return Done()

    threaded(act, until=all_ended).run()
    assert (done(), most) == (3 * CONCURRENCY, CONCURRENCY)


def test_a_slow_piece_delays_no_other() -> None:
    slow, *quick = record_work(30)
    release = threading.Event()

    def act(work: Work) -> Outcome:
        if work.pk == slow.pk:
            assert release.wait(LONG_S)
        return Done()

    stop = threading.Event()
    with running(threaded(act, until=stop.is_set), stop):
        wait_until(lambda: done() == len(quick))
        assert states([slow]) == [State.PENDING]
        release.set()
        wait_until(all_ended)


def test_new_work_begins_while_a_slow_piece_runs() -> None:
    (slow,) = record_work(1)
    begun, release, stop = threading.Event(), threading.Event(), threading.Event()

    def act(work: Work) -> Outcome:
        if work.pk == slow.pk:
            begun.set()
            assert release.wait(LONG_S)
        return Done()

    with running(threaded(act, until=stop.is_set), stop):
        assert begun.wait(LONG_S)
        record_work(5)
        wait_until(lambda: done() == 5)
        release.set()


def test_work_that_comes_after_other_work_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "POLL_INTERVAL_S", LONG_S)
    stop = threading.Event()
    record_work(1)
    with running(threaded(until=stop.is_set), stop):
        for number in range(1, 4):
            wait_until(lambda number=number: done() == number, timeout=LONG_S / 3)  # type: ignore[misc]
            record_work(1)
        wait_until(lambda: done() == 4, timeout=LONG_S / 3)


def test_every_outcome_is_recorded_with_what_follows_from_it() -> None:
    outcomes: list[Outcome] = [Done(1), Failed("no such card"), Cancelled("not wanted"), TryAgain("busy")]
    works = record_work(40)
    of_work: dict[int, Outcome] = {work.pk: outcomes[n % 4] for n, work in enumerate(works)}
    recorded: dict[int, Outcome] = {}
    main = threading.get_ident()

    def record(results: Any) -> None:
        assert (connection.in_atomic_block, threading.get_ident()) == (True, main)
        recorded.update({work.pk: outcome for work, outcome in results})

    threaded(lambda work: of_work[work.pk], until=lambda: len(recorded) == 40, record=record, first_pause_s=600).run()
    assert recorded == of_work
    assert states(works) == [State.DONE, State.FAILED, State.CANCELLED, State.PENDING] * 10
    assert not Work.objects.exclude(lease=None).exists()


def test_an_unexpected_error_is_tried_again_alone() -> None:
    bad, *_ = record_work(6)

    def act(work: Work) -> Outcome:
        if work.pk == bad.pk:
            raise KeyError("colour")
        return Done()

    threaded(act, until=lambda: Work.objects.exclude(last_error="").exists() and done() == 5).run()
    bad.refresh_from_db()
    assert (bad.state, bad.last_error) == (State.PENDING, "KeyError: 'colour'")


def test_overdue_work_fails_without_an_attempt() -> None:
    record_work(1, deadline_at=database_now() - timedelta(seconds=1))
    threaded(lambda _: pytest.fail("It was tried"), until=all_ended).run()
    assert Work.objects.get().state == State.FAILED


def test_the_session_is_opened_once() -> None:
    record_work(20)
    opened = []

    @contextmanager
    def session() -> Iterator[Callable[[Work], Outcome]]:
        opened.append("opened")
        yield lambda _: Done()
        opened.append("closed")

    worker = threaded(until=all_ended)
    object.__setattr__(worker._kind, "session", session)
    worker.run()
    assert opened == ["opened", "closed"]


class TestStopping:
    def test_what_is_in_hand_is_finished_and_no_more_is_begun(self) -> None:
        record_work(20)
        stop, release = threading.Event(), threading.Event()
        begun: list[int] = []

        def act(work: Work) -> Outcome:
            begun.append(work.pk)
            assert release.wait(LONG_S)
            return Done()

        with running(threaded(act, until=stop.is_set), stop) as thread:
            wait_until(lambda: len(begun) == CONCURRENCY)
            stop.set()
            release.set()
            thread.join(LONG_S)
        assert sorted(begun) == sorted(Work.objects.filter(state=State.DONE).values_list("pk", flat=True))
        assert len(begun) == CONCURRENCY
        assert Work.objects.filter(lease=None, attempts=0).count() == 20 - CONCURRENCY

    def test_waiting_for_the_last_piece_costs_no_cpu_time(self) -> None:
        record_work(1)
        stop, release = threading.Event(), threading.Event()
        loops = 0

        def stopping() -> bool:
            nonlocal loops
            loops += 1
            return stop.is_set()

        def act(work: Work) -> Outcome:
            stop.set()
            assert release.wait(LONG_S)
            return Done()

        with running(threaded(act, until=stopping), stop):
            assert stop.wait(LONG_S)
            before, started = loops, time.monotonic()
            wait_until(lambda: loops >= before + 3)
            assert time.monotonic() - started > threads_module.POLL_INTERVAL_S
            release.set()
        assert done() == 1


class TestUnavailable:
    def test_claims_pause_while_others_finish(self) -> None:
        first, _ = record_work(2)
        refused, release, stop = threading.Event(), threading.Event(), threading.Event()

        def act(work: Work) -> Outcome:
            if work.pk == first.pk:
                refused.set()
                raise ServiceUnavailable("connection refused")
            assert release.wait(LONG_S)
            return Done()

        with running(threaded(act, until=stop.is_set, first_pause_s=600), stop):
            assert refused.wait(LONG_S)
            wait_until(lambda: Work.objects.filter(last_error="connection refused").exists())
            release.set()
            wait_until(lambda: done() == 1)

    def test_one_piece_at_a_time_finds_out_whether_it_is_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threads_module, "FIRST_OUTAGE_PAUSE_S", 0.01)
        monkeypatch.setattr(threads_module, "LAST_OUTAGE_PAUSE_S", 0.01)
        monkeypatch.setattr(threads_module, "POLL_INTERVAL_S", 0.01)
        record_work(60)
        tried: list[int] = []

        def act(work: Work) -> Outcome:
            tried.append(work.pk)
            if len(tried) <= 10:
                raise ServiceUnavailable("connection refused")
            return Done()

        threaded(act, until=lambda: done() == 50, first_pause_s=600, last_pause_s=600).run()
        # The first claim takes a piece for each thread and meets the outage. Later claims take one piece each.
        assert Work.objects.filter(attempts=1, state=State.PENDING).count() == 10

    def test_pauses_grow_until_a_success(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[int] = []

        def no_pause(first_s: float, last_s: float, failures: int) -> float:
            pauses.append(failures)
            return 0.01

        monkeypatch.setattr(threads_module, "backoff", no_pause)
        monkeypatch.setattr(threads_module, "POLL_INTERVAL_S", 0.2)
        record_work(60)
        fails = iter([True] * 3 + [False] + [True] * 2)

        def act(work: Work) -> Outcome:
            if next(fails, False):
                raise ServiceUnavailable("connection refused")
            return Done()

        worker = threaded(act, until=lambda: done() > 10, concurrency=2, first_pause_s=600, last_pause_s=600)
        worker._failures = 1  # So each claim takes one piece from the start.
        worker.run()
        assert pauses[:3] == [1, 2, 3]
        assert pauses[3] == 0


class TestLeases:
    def test_an_outcome_without_its_lease_is_refused(self, caplog: pytest.LogCaptureFixture) -> None:
        late, *others = record_work(3)
        followed: list[int] = []
        taken = uuid4()

        def act(work: Work) -> Outcome:
            return Done()

        def record(results: Any) -> None:
            followed.extend(work.pk for work, _ in results)

        class Stolen(ThreadedWorker[Work]):
            def _record(self, results: Any) -> Any:
                Work.objects.filter(pk=late.pk, lease__isnull=False).exclude(lease=taken).update(
                    due_at=database_now() - timedelta(minutes=1)
                )
                if Work.objects.filter(pk=late.pk).exclude(lease=taken).exists():
                    claim(Work, lease=taken, seconds=60, limit=1, due_until=None)
                return super()._record(results)

        Stolen(
            kind(act, record=record, concurrency=CONCURRENCY), stopping=lambda: done() == 2, wait=lambda _: None
        ).run()
        assert states([late]) == [State.PENDING]
        assert sorted(followed) == sorted(one.pk for one in others)
        assert f"email {late.pk} outlived its lease" in caplog.text

    def test_a_piece_that_a_worker_has_twice_counts_once(self) -> None:
        """A worker claims its piece again after the lease has run out. The outcome of the first attempt is refused."""
        (work,) = record_work(1)
        claims = 0
        first_may_end = threading.Event()
        followed: list[Any] = []

        def act(work: Work) -> Outcome:
            nonlocal claims
            claims += 1
            if claims == 1:
                Work.objects.filter(pk=work.pk).update(due_at=database_now() - timedelta(minutes=1))
                assert first_may_end.wait(LONG_S)
                return Done("first")
            first_may_end.set()
            return TryAgain("second")

        def record(results: Any) -> None:
            followed.extend(outcome for _, outcome in results)

        threaded(act, until=lambda: bool(followed), record=record, first_pause_s=600, last_pause_s=600).run()
        assert followed == [TryAgain("second")]
        assert states([work]) == [State.PENDING]

    def test_no_action_begins_whose_end_could_be_beyond_the_lease(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The process is frozen between the claim and the beginning of the action."""
        record_work(1)
        begun: list[int] = []
        given_back = threading.Event()

        class Frozen(ThreadedWorker[Work]):
            def _do_in_thread(self, act: Any, work: Work, last_start: float) -> None:
                super()._do_in_thread(act, work, last_start=time.monotonic() - 1)

            def _give_back(self, works: Any) -> None:
                super()._give_back(works)
                given_back.set()

        def act(work: Work) -> Outcome:
            begun.append(work.pk)
            return Done()

        Frozen(kind(act, concurrency=CONCURRENCY), stopping=given_back.is_set, wait=lambda _: None).run()
        row = Work.objects.get()
        assert (begun, row.attempts, row.lease, row.state) == ([], 0, None, State.PENDING)

    def test_a_piece_beyond_its_lease_holds_no_thread(self, caplog: pytest.LogCaptureFixture) -> None:
        hanging = record_work(CONCURRENCY)
        release, stop = threading.Event(), threading.Event()
        stuck = {work.pk for work in hanging}

        def act(work: Work) -> Outcome:
            if work.pk in stuck and work.attempts == 1:
                assert release.wait(LONG_S)
            return Done()

        with running(threaded(act, until=stop.is_set, lease_s=1.5, action_s=0.5), stop):
            wait_until(all_ended)
            release.set()
        assert done() == CONCURRENCY
        assert "takes longer than its lease" in caplog.text


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, DatabaseError])
def test_an_outcome_waits_for_the_database(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    works = record_work(8)
    failures = iter([error("server closed the connection unexpectedly")] * 3)

    def failing_settle(*args: Any, **options: Any) -> Any:
        if error := next(failures, None):
            raise error
        return settle(*args, **options)

    monkeypatch.setattr(worker_module, "settle", failing_settle)
    monkeypatch.setattr(worker_module, "RECORD_RETRY_S", 0)
    monkeypatch.setattr(threads_module, "CLAIM_AFTER_OUTAGE_S", 0)
    threaded(until=all_ended).run()
    assert states(works) == [State.DONE] * 8


def test_a_claim_that_fails_is_made_again_after_a_pause(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    works = record_work(8)
    failures = iter([OperationalError("the database system is starting up")] * 2)

    def failing_claim(*args: Any, **options: Any) -> Any:
        if error := next(failures, None):
            raise error
        return claim(*args, **options)

    monkeypatch.setattr(threads_module, "claim", failing_claim)
    for name in ("FIRST_OUTAGE_PAUSE_S", "LAST_OUTAGE_PAUSE_S", "CLAIM_AFTER_OUTAGE_S"):
        monkeypatch.setattr(threads_module, name, 0.01)
    threaded(until=all_ended).run()
    assert states(works) == [State.DONE] * 8
    assert caplog.text.count("the database system is starting up") == 2


def test_outcomes_survive_an_error_of_any_other_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a migration is missing, the worker cannot record outcomes. It keeps them, and records them later."""
    works = record_work(8)
    tried: list[int] = []
    failures, is_broken = 0, True

    def act(work: Work) -> Outcome:
        tried.append(work.pk)
        return Done()

    def settle_later(*args: Any, **options: Any) -> Any:
        nonlocal failures
        if is_broken:
            failures += 1
            raise ProgrammingError("column does not exist")
        return settle(*args, **options)

    def until() -> bool:
        nonlocal is_broken
        is_broken = failures < 9
        return all_ended()

    monkeypatch.setattr(worker_module, "settle", settle_later)
    for name in ("RECORD_RETRY_S", "FIRST_OUTAGE_PAUSE_S", "LAST_OUTAGE_PAUSE_S", "CLAIM_AFTER_OUTAGE_S"):
        monkeypatch.setattr(threads_module, name, 0.01)
    threaded(act, until=until).run()
    assert failures >= 9
    assert states(works) == [State.DONE] * 8
    assert sorted(tried) == sorted(work.pk for work in works)


class TestSweep:
    @pytest.mark.parametrize("count", [0, 1, CONCURRENCY, 50])
    def test_it_does_all_that_is_due(self, count: int) -> None:
        record_work(count)
        assert len(threaded(until=lambda: False).sweep(due_until=database_now())) == count
        assert done() == count

    def test_it_tries_each_piece_once(self) -> None:
        record_work(30)
        tried: list[int] = []

        def act(work: Work) -> Outcome:
            tried.append(work.pk)
            return TryAgain("busy")

        threaded(act, until=lambda: False, first_pause_s=0, last_pause_s=0).sweep(due_until=database_now())
        assert len(tried) == len(set(tried)) == 30

    def test_it_ends_with_the_error_of_the_service(self) -> None:
        bad, *good = record_work(3)

        def act(work: Work) -> Outcome:
            if work.pk == bad.pk:
                raise ServiceUnavailable("connection refused")
            return Done()

        with pytest.raises(ServiceUnavailable, match="connection refused"):
            threaded(act, until=lambda: False).sweep(due_until=database_now())
        assert states(good) == [State.DONE] * 2

    def test_it_finishes_what_is_in_hand_when_a_claim_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        works = record_work(2 * CONCURRENCY)
        claims = iter([claim])

        def one_claim(*args: Any, **options: Any) -> Any:
            if real := next(claims, None):
                return real(*args, **options)
            raise OperationalError("server closed the connection")

        monkeypatch.setattr(threads_module, "claim", one_claim)
        with pytest.raises(OperationalError):
            threaded(until=lambda: False).sweep(due_until=database_now())
        assert states(works).count(State.DONE) == CONCURRENCY

    def test_it_records_what_is_in_hand_after_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        works = record_work(CONCURRENCY)
        # Recording all of them fails, then recording the first one, then recording that this failed.
        failures = iter([ProgrammingError("column does not exist")] * 3)

        def failing_settle(*args: Any, **options: Any) -> Any:
            if error := next(failures, None):
                raise error
            return settle(*args, **options)

        monkeypatch.setattr(worker_module, "settle", failing_settle)
        monkeypatch.setattr(threads_module, "RECORD_RETRY_S", 0.01)
        with pytest.raises(ProgrammingError):
            threaded(until=lambda: False).sweep(due_until=database_now())
        assert states(works) == [State.DONE] * CONCURRENCY
