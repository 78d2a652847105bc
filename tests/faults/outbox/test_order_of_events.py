"""The events of one order are sent in sequence, despite failures and transactions that commit late."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.conf import settings

from events.wire.timestamps import now
from testkit import database
from testkit.kafka_client import read_topic
from testkit.processes import is_frozen
from testkit.waiting import wait_until
from tests.faults.conftest import NO_KAFKA, ONE_WORKER, Site, StartWeb
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle, Shopper
from tests.faults.places import ORDER_RECORDED, PUBLISHER_HAS_IT, SENT_BUT_NOT_RECORDED


def sequences_on_topic(order_id: int) -> list[bytes | None]:
    """Return the `ce_sequence` headers of an order's messages on the topic, repeats included."""
    key = str(order_id).encode()
    return [message.header["ce_sequence"] for message in read_topic("order-events") if message.key == key]


def flows(shopper: Shopper) -> bool:
    """Place and pay an order. Return whether the fast path, without the relay, publishes both events within 1 s."""
    order_id = shopper.place_order()
    assert order_id
    assert shopper.change(order_id, "pay")
    try:
        return wait_until(lambda: database.published_paths(order_id) == ["fast", "fast"], timeout=1)
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("failing", "first_try"), [(PUBLISHER_HAS_IT, []), (SENT_BUT_NOT_RECORDED, [b"1"])], ids=["unsent", "unrecorded"]
)
def test_an_event_waits_until_its_predecessor_is_recorded(
    failing: str, first_try: list[bytes], site: Site, oracle: Oracle, start_web: StartWeb
) -> None:
    """An event is sent only after its predecessor is recorded as sent. Events of other orders do not wait."""
    site.relay.freeze()
    web = start_web(launcher=sabotage("fail-before", failing), **ONE_WORKER)
    shopper = oracle.shopper(web.url)
    order_id = shopper.place_order()
    assert order_id
    wait_until(lambda: web.says(f"Sabotage: {failing}"))
    assert shopper.change(order_id, "pay")
    wait_until(lambda: flows(shopper))
    assert database.published_paths(order_id) == [None, None]
    assert sequences_on_topic(order_id) == first_try
    # Wait out the relay's grace period: before its end, the fast path and the relay could both send the second event.
    newest = "SELECT max(recorded_at) FROM events_outboxevent WHERE stream = %(stream)s"
    recorded_at = database.value(newest, stream=f"order-{order_id}")
    wait_until(lambda: now() - recorded_at > settings.OUTBOX_RELAY_GRACE)
    site.relay.thaw()
    oracle.settle_and_compare()
    assert sequences_on_topic(order_id) == [*first_try, b"1", b"2"]


def test_an_event_whose_transaction_commits_late_is_still_sent(oracle: Oracle, start_web: StartWeb) -> None:
    """The relay sends the event after events with higher ids, whose transactions committed earlier."""
    web = start_web(launcher=sabotage("freeze-after", ORDER_RECORDED), **NO_KAFKA)
    another = oracle.shopper(web.url)
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(oracle.shopper(web.url).place_order, key=str(uuid4()))
        frozen = wait_until(lambda: [worker for worker in web.workers() if is_frozen(worker)])
        try:
            # The kernel assigns connections to frozen workers as well.
            wait_until(another.finds_a_worker_that_answers)
            higher_id = another.place_order()
            assert higher_id
            wait_until(lambda: database.published_paths(higher_id) == ["relay"])
        finally:
            frozen[0].resume()
        lower_id = answer.result()
    assert lower_id
    assert lower_id < higher_id
    assert oracle.settle_and_compare().notifications == 2
    assert database.published_paths(lower_id) == ["relay"]
