"""Events that can never be sent are parked, and only those."""

from psycopg2 import Binary

from testkit import database
from testkit.proxy import Proxy
from testkit.waiting import wait_until
from tests.faults.conftest import NO_KAFKA, Site, StartWeb
from tests.faults.oracle import Oracle

TOO_LARGE_BYTES = 2 * 1024 * 1024 + 1
"""Size of a message that is one byte above the limit of the dead-letter topic."""
OUTAGE_S = 20


def record_unsendable_event() -> int:
    """Record a dead letter's copy that is too large for Kafka, and return the id of its outbox row."""
    return int(
        database.value(
            """
            INSERT INTO events_outboxevent (event_id, event_type, topic, value, headers, created_at, parked_reason)
            VALUES (gen_random_uuid(), 'DEAD_LETTER', 'order-events-dlt', %(value)s, %(headers)s, now(), '')
            RETURNING id
            """,
            value=Binary(b"x" * TOO_LARGE_BYTES),
            headers=Binary(b"\x90"),
        )
    )


def test_an_unsendable_event_is_parked_and_others_are_sent(oracle: Oracle, start_web: StartWeb) -> None:
    web = start_web(**NO_KAFKA)
    with oracle.shopping(web.url):
        oracle.wait_for_more(20)
        unsendable = record_unsendable_event()
        reason = wait_until(
            lambda: database.value("SELECT parked_reason FROM events_outboxevent WHERE id = %(id)s", id=unsendable)
        )
        oracle.wait_for_more(20)
    assert "larger than" in reason
    oracle.settle_and_compare()
    parked = "SELECT parked_at IS NOT NULL AND published_at IS NULL FROM events_outboxevent WHERE id = %(id)s"
    assert database.value(parked, id=unsendable)


def test_an_outage_parks_nothing(site: Site, proxy: Proxy, oracle: Oracle) -> None:
    parked_before = database.parked()
    with oracle.shopping(site.web.url):
        proxy.refuse()
        wait_until(lambda: database.oldest_pending_seconds() > OUTAGE_S / 2)
        proxy.swallow()
        wait_until(lambda: database.oldest_pending_seconds() > OUTAGE_S)
        proxy.heal()
    oracle.settle_and_compare()
    assert database.parked() == parked_before
