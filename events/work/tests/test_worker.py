"""The worker: what it does with each outcome, and that no failure of the database loses an outcome."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, DataError, InterfaceError, OperationalError, ProgrammingError, connection
from prometheus_client import REGISTRY

from events.database_clock import database_now
from events.work import worker as worker_module
from events.work.leases import claim, settle
from events.work.models import Backlog, LeasedWork
from events.work.outcomes import Cancelled, Done, Failed, Outcome, ServiceUnavailable, TryAgain
from events.work.worker import Worker
from testkit.mail.work import Work, kind, record_work, worker

pytestmark = pytest.mark.django_db

State = LeasedWork.State
OUTCOMES = [
    (Done(), "done", State.DONE, ""),
    (Failed("no such user"), "failed", State.FAILED, "no such user"),
    (Cancelled("not wanted"), "cancelled", State.CANCELLED, "not wanted"),
    (TryAgain("mailbox full"), "retried", State.PENDING, "mailbox full"),
]


def states(work: list[Work]) -> list[str]:
    return [Work.objects.get(pk=one.pk).state for one in work]


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("email_deliveries_total", {"outcome": outcome}) or 0.0


def noting(keys: list[int], outcome: Outcome = Done()) -> Callable[[Work], Outcome]:  # noqa: B008
    """Return an action that appends the primary key of its work to `keys`, and then returns `outcome`."""

    def act(work: Work) -> Outcome:
        keys.append(work.pk)
        return outcome

    return act


def end_leases() -> None:
    Work.objects.update(due_at=database_now() - timedelta(minutes=1))


@pytest.mark.parametrize(("outcome", "label", "state", "error"), OUTCOMES)
def test_an_outcome_is_recorded_and_counted(outcome: Outcome, label: str, state: str, error: str) -> None:
    (work,) = record_work(1, last_error="earlier")
    before = counted(label)
    worker(lambda _: outcome).work_off_batch()
    work.refresh_from_db()
    assert (work.state, work.last_error, work.lease, work.attempts) == (state, error, None, 1)
    assert counted(label) == before + 1


@pytest.mark.django_db(transaction=True)
def test_the_action_runs_outside_of_any_transaction() -> None:
    work = record_work(3)
    inside: list[bool] = []

    def act(work: Work) -> Outcome:
        inside.append(connection.in_atomic_block)
        return Done()

    worker(act).work_off_batch()
    assert inside == [False] * len(work)


@pytest.mark.django_db(transaction=True)
def test_what_follows_commits_together_with_the_outcome() -> None:
    work = record_work(3)
    followed: list[tuple[int, Any, bool]] = []

    def record(results: Any) -> None:
        followed.extend((one.pk, outcome.result, connection.in_atomic_block) for one, outcome in results)

    worker(lambda work: Done(work.pk * 2), record=record).work_off_batch()
    assert sorted(followed) == sorted((one.pk, one.pk * 2, True) for one in work)


@pytest.mark.django_db(transaction=True)
def test_an_outcome_whose_consequence_fails_is_tried_again() -> None:
    good, bad, other = record_work(3)

    def record(results: Any) -> None:
        if any(one.pk == bad.pk and isinstance(outcome, Done) for one, outcome in results):
            raise LookupError("no such order")

    worker(record=record).work_off_batch()
    assert states([good, bad, other]) == [State.DONE, State.PENDING, State.DONE]
    bad.refresh_from_db()
    assert bad.last_error == "What follows from it cannot be recorded: no such order"


def test_an_unexpected_error_is_tried_again_alone() -> None:
    bad, good = record_work(2)

    def act(work: Work) -> Outcome:
        if work.pk == bad.pk:
            raise KeyError("colour")
        return Done()

    worker(act).work_off_batch()
    assert states([bad, good]) == [State.PENDING, State.DONE]
    bad.refresh_from_db()
    assert bad.last_error == "KeyError: 'colour'"


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 100_000])
def test_an_error_of_any_text_is_stored(text: str) -> None:
    (work,) = record_work(1)
    worker(lambda _: TryAgain(text)).work_off_batch()
    work.refresh_from_db()
    assert work.attempts == 1
    assert work.last_error
    assert len(work.last_error) < 9_000


def test_pauses_grow_up_to_their_limit() -> None:
    (work,) = record_work(1)
    pauses = []
    for _ in range(6):
        end_leases()
        worker(lambda _: TryAgain("busy"), first_pause_s=10, last_pause_s=100).work_off_batch()
        work.refresh_from_db()
        pauses.append((work.due_at - database_now()).total_seconds())
    for pause, longest in zip(pauses, [10, 20, 40, 80, 100, 100], strict=True):
        assert longest / 2 - 5 < pause <= longest


@pytest.mark.parametrize(
    ("attempts", "earlier", "reason"),
    [
        (1, "mailbox full", "mailbox full"),
        (0, "", "Its deadline passed before the first attempt"),
        (
            1,
            "",
            "Its deadline passed, and what became of the earlier attempts is not known: their workers were ended",
        ),
    ],
)
def test_overdue_work_fails_without_an_attempt(attempts: int, earlier: str, reason: str) -> None:
    overdue = {"deadline_at": database_now() - timedelta(seconds=1), "attempts": attempts, "last_error": earlier}
    (work,) = record_work(1, **overdue)
    done: list[int] = []
    worker(noting(done)).work_off_batch()
    work.refresh_from_db()
    assert (done, work.state, work.last_error) == ([], State.FAILED, reason)


def test_a_consequence_that_always_fails_holds_up_no_worker() -> None:
    (work,) = record_work(1)

    def record(results: Any) -> None:
        raise ProgrammingError("no such table")

    worker(record=record).work_off_batch()
    work.refresh_from_db()
    assert (work.state, work.attempts) == (State.PENDING, 1)
    assert work.last_error == "What follows from it cannot be recorded: no such table"


def test_data_that_the_database_refuses_stops_one_piece_alone() -> None:
    bad, *good = record_work(3)

    def act(work: Work) -> Outcome:
        if work.pk == bad.pk:
            raise DataError("value too long")
        return Done()

    worker(act).work_off_batch()
    assert states([bad, *good]) == [State.PENDING, State.DONE, State.DONE]


def test_work_begun_least_often_comes_first() -> None:
    record_work(3, attempts=4)
    (fresh,) = record_work(1)
    order: list[int] = []
    worker(noting(order)).work_off_batch()
    assert order[0] == fresh.pk


class TestUnavailable:
    def test_only_the_piece_that_found_out_counts_an_attempt(self) -> None:
        record_work(5)

        def act(work: Work) -> Outcome:
            raise ServiceUnavailable("connection refused")

        with pytest.raises(ServiceUnavailable):
            worker(act).work_off_batch()
        tried = Work.objects.filter(attempts=1)
        assert [one.last_error for one in tried] == ["connection refused"]
        assert Work.objects.filter(attempts=0, lease=None, due_at__lte=database_now()).count() == 4

    def test_what_was_done_before_is_recorded(self) -> None:
        work = record_work(5)
        done: list[int] = []

        def act(work: Work) -> Outcome:
            if len(done) == 3:
                raise ServiceUnavailable("closed")
            done.append(work.pk)
            return Done()

        with pytest.raises(ServiceUnavailable):
            worker(act).work_off_batch()
        assert sorted(one.pk for one in work if one.pk in done) == sorted(
            Work.objects.filter(state=State.DONE).values_list("pk", flat=True)
        )

    @pytest.mark.django_db(transaction=True)
    def test_the_database_failing_in_an_action_loses_no_outcome(self) -> None:
        record_work(3)
        done: list[int] = []

        def act(work: Work) -> Outcome:
            if done:
                raise OperationalError("server closed the connection")
            done.append(work.pk)
            return Done()

        with pytest.raises(ServiceUnavailable):
            worker(act).work_off_batch()
        assert Work.objects.get(state=State.DONE).pk == done[0]

    def test_the_worker_waits_longer_after_each_outage(self) -> None:
        record_work(50)
        waits: list[float] = []

        def act(work: Work) -> Outcome:
            raise ServiceUnavailable("connection refused")

        Worker(kind(act), stopping=lambda: len(waits) == 7, wait=waits.append).run()
        for wait, longest in zip(waits, [1, 2, 4, 8, 16, 30, 30], strict=True):
            assert longest / 2 <= wait <= longest

    def test_success_ends_the_growth_of_waits(self) -> None:
        record_work(9)
        waits: list[float] = []
        fails = iter([True, True, False, True])

        def act(work: Work) -> Outcome:
            if next(fails):
                raise ServiceUnavailable("connection refused")
            return Done()

        Worker(kind(act, batch_size=1), stopping=lambda: len(waits) == 3, wait=waits.append).run()
        assert waits[1] > waits[2]
        assert waits[2] <= 1


def test_a_worker_told_to_stop_gives_the_rest_back() -> None:
    work = record_work(5)
    done: list[int] = []
    Worker(kind(noting(done)), stopping=lambda: len(done) == 2, wait=lambda _: None).run()
    assert Work.objects.filter(state=State.DONE).count() == 2
    given_back = Work.objects.filter(lease=None, attempts=0, due_at__lte=database_now())
    assert given_back.count() == 3
    assert set(given_back.values_list("due_at", flat=True)) <= {one.due_at for one in work}


def test_no_action_begins_whose_end_could_be_beyond_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    record_work(3)
    start = time.monotonic()
    clock = [start]
    monkeypatch.setattr(worker_module.time, "monotonic", lambda: clock[0])

    def act(work: Work) -> Outcome:
        clock[0] += 30
        return Done()

    worker(act, lease_s=100, action_s=50).work_off_batch()
    assert Work.objects.filter(state=State.DONE).count() == 2
    assert Work.objects.filter(lease=None, attempts=0).count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_long_action_is_recorded_before_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    record_work(3)
    clock = [time.monotonic()]
    monkeypatch.setattr(worker_module.time, "monotonic", lambda: clock[0])
    done_before: list[int] = []

    def act(work: Work) -> Outcome:
        done_before.append(Work.objects.filter(state=State.DONE).count())
        clock[0] += 1
        return Done()

    worker(act).work_off_batch()
    assert done_before == [0, 1, 2]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError, InterfaceError, DatabaseError])
def test_an_outcome_waits_for_the_database(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    work = record_work(2)
    failures = iter([error("server closed the connection unexpectedly")] * 3)

    def failing_settle(*args: Any, **options: Any) -> Any:
        if error := next(failures, None):
            raise error
        return settle(*args, **options)

    monkeypatch.setattr(worker_module, "settle", failing_settle)
    monkeypatch.setattr(worker_module, "RECORD_RETRY_S", 0)
    worker().work_off_batch()
    assert states(work) == [State.DONE] * 2


def test_an_outcome_without_its_lease_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    late, in_time = record_work(2)
    followed: list[int] = []
    before = counted("lost")

    def act(work: Work) -> Outcome:
        if work.pk == late.pk:
            Work.objects.filter(pk=late.pk).update(due_at=database_now() - timedelta(minutes=1))
            claim(Work, lease=uuid4(), seconds=60, limit=1, due_until=None)
        return Done()

    worker(act, record=lambda results: followed.extend(one.pk for one, _ in results)).work_off_batch()
    assert states([late, in_time]) == [State.PENDING, State.DONE]
    assert followed == [in_time.pk]
    assert counted("lost") == before + 1
    assert f"email {late.pk} outlived its lease" in caplog.text


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 120])
def test_a_sweep_does_all_that_is_due(count: int) -> None:
    record_work(count)
    assert len(worker().sweep(due_until=database_now())) == count
    assert Work.objects.filter(state=State.DONE).count() == count


def test_a_sweep_tries_each_piece_once() -> None:
    record_work(60)
    attempted: list[int] = []
    worker(noting(attempted, TryAgain("busy")), first_pause_s=0, last_pause_s=0).sweep(due_until=database_now())
    assert len(attempted) == len(set(attempted)) == 60


def test_a_sweep_goes_on_with_what_a_batch_gave_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of slow actions has no time for all its work, and gives the rest back. `sweep` claims the rest again."""
    record_work(7)
    clock = [time.monotonic()]
    monkeypatch.setattr(worker_module.time, "monotonic", lambda: clock[0])

    def act(work: Work) -> Outcome:
        clock[0] += 30
        return Done()

    assert len(worker(act, lease_s=100, action_s=50).sweep(due_until=database_now())) == 7


def test_a_sweep_goes_on_after_a_batch_whose_outcomes_were_lost() -> None:
    late, *others = record_work(3)

    def act(work: Work) -> Outcome:
        if work.pk == late.pk:
            Work.objects.filter(pk=late.pk).update(lease=uuid4(), due_at=database_now() + timedelta(hours=1))
        return Done()

    assert len(worker(act, batch_size=1).sweep(due_until=database_now())) == 2
    assert states(others) == [State.DONE] * 2


@pytest.mark.parametrize("fields", [{}, {"attempts": 7, "last_error": "mailbox full", "deadline_at": None}])
def test_failed_work_can_be_made_pending_again(fields: dict[str, Any]) -> None:
    failed, done = record_work(1, state=State.FAILED, finished_at=database_now(), **fields) + record_work(
        1, state=State.DONE, finished_at=database_now()
    )
    assert Work.objects.all().try_again(within=timedelta(hours=1)) == 1
    worker().sweep(due_until=database_now())
    assert states([failed, done]) == [State.DONE] * 2
    failed.refresh_from_db()
    assert failed.attempts == 1


def test_the_backlog_counts_pending_rows_and_the_oldest_age() -> None:
    assert Work.objects.all().backlog() == Backlog(0, 0.0)
    record_work(2, created_at=database_now() - timedelta(seconds=90))
    record_work(1, state=State.DONE, finished_at=database_now(), created_at=database_now() - timedelta(days=1))
    backlog = Work.objects.all().backlog()
    assert backlog.pending == 2
    assert 90 <= backlog.oldest_pending_seconds < 150


def test_work_is_overdue_until_a_worker_claims_it() -> None:
    record_work(1, due_in=timedelta(minutes=3))
    assert Work.objects.all().backlog().overdue_seconds == 0
    record_work(1, due_in=timedelta(seconds=-90))
    assert 90 <= Work.objects.all().backlog().overdue_seconds < 150
    claim(Work, lease=uuid4(), seconds=60, limit=1, due_until=None)
    assert Work.objects.all().backlog().overdue_seconds == 0
