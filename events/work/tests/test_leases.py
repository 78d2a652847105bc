"""A lease: who may claim a row, for how long, and whose outcome counts."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction

from events.database_clock import database_now
from events.work.leases import Settlement, claim, settle
from events.work.models import LeasedWork
from testkit.mail.work import Work, record_work

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
FINAL_STATES = [state for state in LeasedWork.State if state != LeasedWork.State.PENDING]


def claimed(limit: int = 50, *, lease: UUID | None = None, due_until: Any = None) -> list[int]:
    """Claim due work with a lease of one minute. Return the primary keys of that work in ascending order."""
    return keys(claim(Work, lease=lease or uuid4(), seconds=60, limit=limit, due_until=due_until))


def keys(work: list[Work]) -> list[int]:
    return sorted(one.pk for one in work)


def end_leases() -> None:
    Work.objects.update(due_at=database_now() - MINUTE)


def test_the_longest_due_rows_are_claimed_first() -> None:
    work = record_work(5)
    with connection.cursor() as cursor:
        # The index would return them in this order without being asked.
        cursor.execute("SET LOCAL enable_indexscan = off")
    assert claimed(limit=2) == keys(work[:2])
    assert claimed(limit=2) == keys(work[2:4])


def test_a_row_is_not_claimed_before_it_is_due() -> None:
    record_work(3, due_in=MINUTE)
    assert claimed() == []


def test_a_leased_row_is_not_claimed_until_the_lease_ends() -> None:
    work = record_work(2)
    assert claimed() == keys(work)
    assert claimed() == []
    end_leases()
    assert claimed() == keys(work)


@pytest.mark.parametrize("state", FINAL_STATES)
def test_a_row_with_a_final_state_is_never_claimed(state: str) -> None:
    record_work(1, state=state, finished_at=database_now())
    assert claimed() == []


def test_rows_due_after_the_given_time_are_left() -> None:
    work = record_work(5)
    assert claimed(due_until=work[2].due_at) == keys(work[:3])


def test_each_claim_counts_as_an_attempt() -> None:
    (work,) = record_work(1)
    for attempts in (1, 2):
        claimed()
        end_leases()
        work.refresh_from_db()
        assert work.attempts == attempts


@pytest.mark.parametrize(("deadline", "is_overdue"), [(-MINUTE, True), (MINUTE, False), (None, False)])
def test_a_claim_tells_which_rows_are_overdue(deadline: timedelta | None, is_overdue: bool) -> None:
    record_work(1, deadline_at=deadline and database_now() + deadline)
    (row,) = claim(Work, lease=uuid4(), seconds=60, limit=1, due_until=None)
    assert row.is_overdue == is_overdue


def test_a_claim_converts_values_as_queries_do(monkeypatch: pytest.MonkeyPatch) -> None:
    field = Work._meta.get_field("last_error")
    monkeypatch.setattr(field, "from_db_value", lambda value, *_: f"<{value}>", raising=False)
    record_work(1, last_error="late")
    (row,) = claim(Work, lease=uuid4(), seconds=60, limit=1, due_until=None)
    assert row.last_error == "<late>"


@pytest.mark.django_db(transaction=True)
def test_a_claim_passes_over_rows_that_another_is_claiming() -> None:
    work = record_work(4)
    with ThreadPoolExecutor(1) as other, transaction.atomic():
        assert claimed(limit=2) == keys(work[:2])
        assert other.submit(_in_a_thread(claimed)).result(timeout=30) == keys(work[2:])


@pytest.mark.django_db(transaction=True)
def test_workers_side_by_side_claim_each_row_once() -> None:
    work = record_work(200)

    def claim_until_none_is_left() -> list[int]:
        found: list[int] = []
        while batch := claimed(limit=7):
            found += batch
        return found

    with ThreadPoolExecutor(4) as workers:
        results = [workers.submit(_in_a_thread(claim_until_none_is_left)) for _ in range(4)]
        assert sorted(pk for result in results for pk in result.result(timeout=60)) == keys(work)


def _in_a_thread(function: Callable[[], list[int]]) -> Callable[[], list[int]]:
    def run() -> list[int]:
        try:
            return function()
        finally:
            connection.close()

    return run


@pytest.mark.parametrize("state", LeasedWork.State)
def test_an_outcome_counts_only_under_the_rows_lease(state: str) -> None:
    (work,) = record_work(1)
    claimed(lease=(late := uuid4()))
    end_leases()
    claimed(lease=(current := uuid4()))
    assert settle(Work, [Settlement(work.pk, late, state, error="late")]) == set()
    work.refresh_from_db()
    assert (work.state, work.lease, work.last_error) == (LeasedWork.State.PENDING, current, "")
    assert settle(Work, [Settlement(work.pk, current, state, error="now")]) == {(work.pk, current)}
    work.refresh_from_db()
    assert (work.state, work.lease, work.last_error) == (state, None, "now")


def test_an_outcome_counts_after_the_lease_if_none_took_the_row() -> None:
    (work,) = record_work(1)
    claimed(lease=(lease := uuid4()))
    end_leases()
    assert settle(Work, [Settlement(work.pk, lease, "done")]) == {(work.pk, lease)}


@pytest.mark.parametrize("state", LeasedWork.State)
def test_only_a_final_state_has_a_time_of_its_end(state: str) -> None:
    (work,) = record_work(1)
    claimed(lease=(lease := uuid4()))
    settle(Work, [Settlement(work.pk, lease, state)])
    work.refresh_from_db()
    assert (work.finished_at is None) == (state == LeasedWork.State.PENDING)


def test_a_row_given_back_untried_keeps_attempts_and_error() -> None:
    (work,) = record_work(1, attempts=3, last_error="before")
    claimed(lease=(lease := uuid4()))
    settle(Work, [Settlement(work.pk, lease, "pending", tried=False)])
    work.refresh_from_db()
    assert (work.attempts, work.last_error) == (3, "before")
    assert claimed() == [work.pk]


def test_the_pause_after_an_attempt_ends_at_the_deadline() -> None:
    soon, late = record_work(2)
    Work.objects.filter(pk=soon.pk).update(deadline_at=database_now() + MINUTE)
    claimed(lease=(lease := uuid4()))
    before = database_now()
    settle(Work, [Settlement(one.pk, lease, "pending", pause_s=600) for one in (soon, late)])
    soon.refresh_from_db()
    late.refresh_from_db()
    assert soon.due_at == soon.deadline_at
    assert before + 10 * MINUTE <= late.due_at <= database_now() + 10 * MINUTE
