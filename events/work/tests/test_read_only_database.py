"""Workers beside a database that takes no writes for a while, as after a switchover to a standby."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import InternalError, OperationalError, connection

from events.troubles import is_database_away, kind_of
from events.work import threads as threads_module
from events.work import worker as worker_module
from events.work.models import LeasedWork
from events.work.outcomes import Done, Outcome
from events.work.threads import worker_of
from testkit.mail.work import Work, kind, record_work

State = LeasedWork.State


def set_read_only(value: str) -> None:
    """Turn read-only transactions on or off, as the default of this session and of all later ones."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER DATABASE {connection.settings_dict['NAME']} SET default_transaction_read_only = {value}")
        cursor.execute(f"SET default_transaction_read_only = {value}")


@pytest.fixture(autouse=True)
def _writable_again(transactional_db: None) -> Iterator[None]:
    yield
    set_read_only("off")


@pytest.mark.parametrize("concurrency", [1, 4])
def test_outcomes_wait_until_the_database_takes_writes(
    concurrency: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "RECORD_RETRY_S", 0.01)
    monkeypatch.setattr(threads_module, "CLAIM_AFTER_OUTAGE_S", 0)
    works = record_work(12)
    tried: list[int] = []
    followed: list[int] = []
    was_read_only = threading.Event()

    def act(work: Work) -> Outcome:
        tried.append(work.pk)
        # A thread's outcome must not be recorded before the database is read-only.
        assert concurrency == 1 or was_read_only.wait(30)
        return Done()

    def record(results: Any) -> None:
        followed.extend(work.pk for work, _ in results)

    def stopping() -> bool:
        """Make the database read-only once a piece was tried, and writable after three failed attempts to record it.

        Return whether the outcomes of all pieces are recorded.
        """
        failures = caplog.text.count("cannot execute UPDATE in a read-only transaction")
        if tried and not was_read_only.is_set():
            set_read_only("on")
            was_read_only.set()
        if failures >= 3:
            set_read_only("off")
        return len(followed) == len(works)

    worker_of(
        kind(act, record=record, concurrency=concurrency), stopping=stopping, wait=lambda _: pytest.fail("It waited")
    ).run()
    assert caplog.text.count("Recording email again") >= 3
    assert sorted(tried) == sorted(followed) == sorted(work.pk for work in works)
    assert Work.objects.filter(state=State.DONE, attempts=1, lease=None).count() == len(works)


REFUSED = {
    "SET TRANSACTION READ ONLY; CREATE TABLE t (n int)": (InternalError, True),
    "DO 'BEGIN RAISE EXCEPTION ''no''; END'": (InternalError, False),
    "DO 'BEGIN RAISE EXCEPTION ''full'' USING ERRCODE = ''disk_full''; END'": (OperationalError, True),
    "DO 'BEGIN RAISE EXCEPTION ''idle'' USING ERRCODE = ''25P03''; END'": (InternalError, True),
    "DO 'BEGIN RAISE EXCEPTION ''slow'' USING ERRCODE = ''25P04''; END'": (InternalError, True),
}


@pytest.mark.parametrize("statement", REFUSED)
def test_what_the_server_says_tells_whether_it_is_away(statement: str) -> None:
    error_class, is_away = REFUSED[statement]
    with pytest.raises(error_class) as raised, connection.cursor() as cursor:
        cursor.execute(statement)
    assert is_database_away(raised.value) == is_away
    assert kind_of(raised.value) == "outage"
