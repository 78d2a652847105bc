"""Workers with several calls at a time are killed, frozen or cut off from the database. Each charge is made once."""

import time
from pathlib import Path

import pytest

from testkit.database import rows
from testkit.participants.provider import ProviderProcess
from testkit.postgres import CrashingPostgres
from testkit.processes import is_frozen
from testkit.waiting import wait_until
from tests.faults.commands.test_endings_of_commands import CLEAN_EXIT, end
from tests.faults.conftest import Start
from tests.faults.launcher import sabotage
from tests.faults.places import ANSWER_NOT_RECORDED, ANSWER_RECORDED, BEFORE_CHARGING
from tests.faults.providers.charges import (
    PAYMENTS,
    WORK,
    all_done,
    assert_charged_once,
    env_of,
    has_polled,
    record_charges,
    record_refund,
    replies,
    states,
)
from tests.faults.short_lease import short_lease
from tests.faults.troubled_database import locked, waiting_for


def charged(provider: ProviderProcess) -> int:
    return len(provider.book("payments"))


def leased() -> int:
    return len(rows(f"SELECT 1 FROM {PAYMENTS} WHERE lease IS NOT NULL"))


@pytest.mark.parametrize("fault", ["silence", "silence-after"])
def test_calls_in_hand_of_a_killed_worker_are_made_once(provider: ProviderProcess, start: Start, fault: str) -> None:
    provider.fail(fault, times=10)
    charges = record_charges(30)
    victim = start(*WORK, launcher=short_lease(), **env_of(provider))
    wait_until(lambda: leased() >= 10)
    victim.kill()
    start(*WORK, launcher=short_lease(), **env_of(provider))
    wait_until(lambda: all_done(charges))
    assert_charged_once(provider, charges)


def test_an_answer_that_a_killed_worker_had_is_asked_for(provider: ProviderProcess, start: Start) -> None:
    charges = record_charges(30)
    victim = start(*WORK, launcher=[*short_lease(), *sabotage("kill-before", ANSWER_NOT_RECORDED)], **env_of(provider))
    wait_until(lambda: victim.process.poll() is not None)
    known = charged(provider)
    assert known >= 1
    # The provider has made charges that are not recorded. The next worker must not make them again.
    start(*WORK, launcher=short_lease(), **env_of(provider))
    wait_until(lambda: all_done(charges))
    assert_charged_once(provider, charges)


def test_a_worker_killed_after_its_commit_leaves_its_replies(provider: ProviderProcess, start: Start) -> None:
    charges = record_charges(30)
    victim = start(*WORK, launcher=[*short_lease(), *sabotage("kill-after", ANSWER_RECORDED)], **env_of(provider))
    wait_until(lambda: victim.process.poll() is not None)
    assert replies(charges).total() == states(charges)["done"] >= 1
    start(*WORK, launcher=short_lease(), **env_of(provider))
    wait_until(lambda: all_done(charges))
    assert_charged_once(provider, charges)
    wait_until(
        lambda: not rows("SELECT 1 FROM events_outboxevent WHERE topic = 'fulfilment-replies' AND published_at IS NULL")
    )


def test_two_workers_make_no_charge_twice(provider: ProviderProcess, start: Start) -> None:
    charges = record_charges(300)
    for _ in range(2):
        start(*WORK, **env_of(provider))
    wait_until(lambda: all_done(charges))
    assert_charged_once(provider, charges)


def test_a_provider_killed_under_load_is_waited_for(provider: ProviderProcess, start: Start) -> None:
    charges = record_charges(200)
    worker = start(*WORK, launcher=short_lease(), **env_of(provider))
    wait_until(lambda: states(charges)["done"] >= 20)
    provider.kill()
    wait_until(lambda: worker.says("No payments for "))
    provider.start()
    wait_until(lambda: all_done(charges))
    assert_charged_once(provider, charges)


def test_a_database_away_beyond_a_lease_doubles_no_charge(
    provider: ProviderProcess, start: Start, postgres: CrashingPostgres, tmp_path: Path
) -> None:
    """While the database is away, the worker keeps updating its liveness file.

    Otherwise a supervisor would kill the worker before it could record the answers.
    """
    alive = tmp_path / "alive"
    provider.kill()
    provider.start(PROVIDER_SLOW_SECONDS="12")
    provider.fail("slow-after", times=5)
    charges = record_charges(5)
    env = env_of(provider) | {"PAYMENT_PROVIDER_TIMEOUT_SECONDS": "20"}
    holder = start(*WORK, f"--liveness-file={alive}", launcher=short_lease(seconds=25), **env)
    wait_until(lambda: charged(provider) == 5)
    leased_until = time.monotonic() + 25
    start(*WORK, launcher=short_lease(), PGAPPNAME="waiting", **env)
    wait_until(lambda: has_polled("waiting"))
    postgres.crash()
    wait_until(lambda: holder.says("Recording payments again: "))
    touched = alive.stat().st_mtime
    wait_until(lambda: alive.stat().st_mtime > touched)
    wait_until(lambda: time.monotonic() > leased_until)
    postgres.start()
    wait_until(lambda: all_done(charges))
    assert_charged_once(provider, charges)


@pytest.mark.parametrize("place", [BEFORE_CHARGING, ANSWER_NOT_RECORDED])
def test_a_worker_frozen_beyond_its_lease_is_refused(provider: ProviderProcess, start: Start, place: str) -> None:
    charges = record_charges(1)
    launcher = [*short_lease(), *sabotage("freeze-before", place)]
    frozen = start(*WORK, launcher=launcher, **env_of(provider))
    wait_until(lambda: is_frozen(frozen.family()[0]))
    start(*WORK, launcher=short_lease(), **env_of(provider))
    wait_until(lambda: all_done(charges))
    frozen.thaw()
    wait_until(lambda: frozen.says("outlived its lease, so its outcome is not recorded"))
    assert_charged_once(provider, charges)
    assert frozen.stop() == 0


def test_a_frozen_worker_charges_nothing_after_the_refund(provider: ProviderProcess, start: Start) -> None:
    charges = record_charges(1)
    frozen = start(
        *WORK, launcher=[*short_lease(seconds=60), *sabotage("freeze-before", BEFORE_CHARGING)], **env_of(provider)
    )
    wait_until(lambda: is_frozen(frozen.family()[0]))
    refund_id = record_refund(charges[0])
    start(*WORK, launcher=short_lease(), **env_of(provider))
    wait_until(lambda: all_done([refund_id]))
    frozen.thaw()
    wait_until(lambda: all_done(charges))
    assert provider.book("payments")[str(charges[0])]["history"] == ["voided"]
    assert replies(charges) == {(charges[0], "PAYMENT_DECLINED"): 1}


def test_workers_end_in_time_in_every_wait(provider: ProviderProcess, start: Start, postgres: CrashingPostgres) -> None:
    idle = start(*WORK, PGAPPNAME="idle", **env_of(provider))
    wait_until(lambda: has_polled("idle"))
    assert end(idle, within=3) == [CLEAN_EXIT]
    charges = record_charges(40)
    provider.fail("slow-after", times=16)
    env = env_of(provider) | {"PAYMENT_PROVIDER_TIMEOUT_SECONDS": "4"}
    slow = start(*WORK, **env)
    wait_until(lambda: charged(provider) == 16)
    assert end(slow) == [CLEAN_EXIT]
    # The worker has finished its calls under way, and has begun no other.
    assert states(charges) == {"done": 16, "pending": 24}
    assert leased() == 0
    provider.fail("silence", times=16)
    silenced = start(*WORK, **env)
    wait_until(lambda: leased() == 16)
    assert end(silenced) == [CLEAN_EXIT]
    hanging = start(*WORK, **env)
    with locked(PAYMENTS):
        wait_until(lambda: waiting_for(PAYMENTS))
        assert end(hanging) == [CLEAN_EXIT]
    rows(f"UPDATE {PAYMENTS} SET due_at = now(), lease = NULL WHERE state = 'pending'")
    provider.fail("slow-after", of="", times=100)
    recording = start(*WORK, **env)
    wait_until(lambda: leased())
    postgres.crash()
    wait_until(lambda: recording.says("Recording payments again: ") or recording.says("No payments for "))
    assert end(recording) == [CLEAN_EXIT]
