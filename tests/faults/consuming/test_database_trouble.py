"""PostgreSQL crashes, cuts connections, deadlocks or times out: the consumer retries, and blames no message."""

import os
from collections.abc import Iterator

import pytest

from testkit.foreign_events import (
    all_notified_once,
    foreign_event,
    foreign_events,
    last_dead_letter_id,
    notification_counts,
    open_dead_letters,
    send,
)
from testkit.postgres import CrashingPostgres
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, SHORT_SESSION, Site, Start
from tests.faults.groups import shares
from tests.faults.oracle import Oracle, lag
from tests.faults.troubled_database import (
    NOTIFICATIONS,
    WAIT_AT_THE_GATE,
    closed_gate,
    cut,
    locked,
    on_notification,
    unanswered_commits,
    waiting_at_the_gate,
    waiting_for,
    waiting_for_the_standby,
)

RETRY_MESSAGE = "again in"
"""Part of the consumer's log line about a batch that it retries."""


@pytest.fixture(autouse=True)
def _no_dead_letter(site: Site) -> Iterator[None]:
    last = last_dead_letter_id()
    yield
    assert open_dead_letters(after=last) == []


def session(option: str) -> dict[str, str]:
    """Return the variable that gives the database sessions of a process this option, such as `statement_timeout=1s`."""
    return {"DATABASE_URL": f"{os.environ['DATABASE_URL']}&options=-c%20{option.replace('=', '%3D')}"}


def test_database_crashes_amid_batches_lose_nothing(site: Site, oracle: Oracle, postgres: CrashingPostgres) -> None:
    with oracle.shopping(site.web.url):
        for _ in range(3):
            oracle.wait_for_more(50)
            with locked(NOTIFICATIONS):
                wait_until(lambda: waiting_for(NOTIFICATIONS))
                postgres.restart_immediately()
        oracle.wait_for_more(50)
    print(oracle.settle_and_compare())
    assert site.consumer.process.poll() is None


def test_a_batch_whose_commit_failed_is_retried(site: Site, oracle: Oracle) -> None:
    """The connection is lost before the commit takes effect."""
    events = foreign_events(20)
    at_the_gate = f"IF NEW.order_id = {events[10].order_id} THEN {WAIT_AT_THE_GATE} END IF;"
    with on_notification(at_the_gate, at_commit=True):
        with closed_gate():
            send(events)
            oracle.place_orders(site.web.url, 8)
            sessions = wait_until(waiting_at_the_gate)
            cut(sessions)
            wait_until(lambda: not set(sessions) & set(waiting_at_the_gate()))
            assert notification_counts(events) == [0] * 20
        oracle.settle_and_compare()
    assert all_notified_once(events)
    assert site.consumer.process.poll() is None


def test_a_batch_whose_commit_went_unanswered_is_not_doubled(site: Site, oracle: Oracle, start: Start) -> None:
    """The connection is lost after the commit has taken effect."""
    site.consumer.stop()
    consumer = start(*CONSUME, **SHORT_SESSION, **session("synchronous_commit=on"), PGAPPNAME="consumer")
    oracle.place_orders(site.web.url, 40)
    wait_until(lambda: lag() == 0)
    events = foreign_events(20)
    with unanswered_commits():
        send(events)
        cut(wait_until(lambda: waiting_for_the_standby("consumer")))
        wait_until(lambda: consumer.says(RETRY_MESSAGE))
        assert all_notified_once(events)
    oracle.place_orders(site.web.url, 8)
    oracle.settle_and_compare()
    assert all_notified_once(events)
    assert consumer.stop() == 0, consumer.log.read_text()


def test_two_consumers_in_a_deadlock_both_save_everything(site: Site, oracle: Oracle, start: Start) -> None:
    other = start(*CONSUME)
    wait_until(lambda: len(shares()) == 2)
    one, another = foreign_event(), foreign_event()
    slowly = f"IF NEW.order_id IN ({one.order_id}, {another.order_id}) THEN PERFORM pg_sleep(0.5); END IF;"
    with on_notification(slowly):
        with locked(NOTIFICATIONS):
            send([one, another], partition=0)
            send([another, one], partition=2)
            wait_until(lambda: waiting_for(NOTIFICATIONS) == 2)
        wait_until(lambda: other.says("deadlock detected") or site.consumer.says("deadlock detected"))
        oracle.place_orders(site.web.url, 8)
        oracle.settle_and_compare()
    assert all_notified_once([one, another])
    assert other.stop() == 0, other.log.read_text()


def test_a_statement_that_took_too_long_is_done_again(site: Site, oracle: Oracle, start: Start) -> None:
    site.consumer.stop()
    consumer = start(*CONSUME, **SHORT_SESSION, **session("statement_timeout=1s"))
    with locked(NOTIFICATIONS):
        oracle.place_orders(site.web.url, 8)
        wait_until(lambda: consumer.log.read_text().count("canceling statement due to statement timeout") >= 2)
    assert oracle.settle_and_compare().notifications == 8
    assert consumer.stop() == 0, consumer.log.read_text()
