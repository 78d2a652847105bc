"""Relays take turns, and another one takes over if the working relay is killed or frozen."""

import time

from testkit import database
from testkit.processes import is_frozen
from testkit.waiting import wait_until
from tests.faults.conftest import NO_KAFKA, RELAY, Site, Start, StartWeb
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle
from tests.faults.places import RELAY_HAS_IT, SENT_BUT_NOT_RECORDED

TAKEOVER_TIMEOUT_S = 10
"""Seconds in which another relay must take over, as documented."""


def seconds_until_events_flow() -> float:
    """Wait until a running relay has sent the event that is the oldest pending one now. Return the seconds it took."""
    started = time.monotonic()
    oldest = database.value("SELECT min(id) FROM events_outboxevent WHERE published_at IS NULL AND parked_at IS NULL")
    sql = "SELECT published_at IS NOT NULL FROM events_outboxevent WHERE id = %(oldest)s"
    wait_until(lambda: database.value(sql, oldest=oldest))
    return time.monotonic() - started


def test_another_relay_takes_over_from_a_killed_one_in_10_s(oracle: Oracle, start: Start, start_web: StartWeb) -> None:
    web = start_web(**NO_KAFKA)
    victim = start(*RELAY, launcher=sabotage("kill-before", SENT_BUT_NOT_RECORDED))
    with oracle.shopping(web.url):
        wait_until(lambda: victim.process.poll() is not None)
        took = seconds_until_events_flow()
    print(f"taken over within {took:.1f} s")
    assert took < TAKEOVER_TIMEOUT_S
    assert oracle.settle_and_compare().repeats > 0


def test_another_relay_takes_over_from_a_frozen_one_in_10_s(
    oracle: Oracle, start: Start, start_web: StartWeb, site: Site
) -> None:
    web = start_web(**NO_KAFKA)
    victim = start(
        *RELAY, launcher=sabotage("freeze-before", RELAY_HAS_IT, containing="ORDER_CREATED"), PGAPPNAME="victim"
    )
    with oracle.shopping(web.url):
        wait_until(lambda: is_frozen(victim.family()[0]))
        assert database.holder_of_the_turn() == "victim"
        took = seconds_until_events_flow()
    print(f"taken over within {took:.1f} s")
    assert took < TAKEOVER_TIMEOUT_S
    oracle.settle_and_compare()

    # After the freeze, the relay sends its wave once more, and then works normally.
    victim.thaw()
    site.relay.freeze()
    oracle.shopper(web.url).place_order()
    assert oracle.settle_and_compare().repeats > 0
    assert victim.stop() == 0
