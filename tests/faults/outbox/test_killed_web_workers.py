"""Web workers that are killed between the change of an order and the sending of its event."""

from uuid import uuid4

import pytest

from testkit import database
from testkit.kafka_client import read_topic
from testkit.waiting import wait_until
from tests.faults.conftest import ONE_WORKER, StartWeb
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle
from tests.faults.places import ORDER_RECORDED, PUBLISHER_HAS_IT, SENT_BUT_NOT_RECORDED, VIEW_HAS_COMMITTED


@pytest.mark.parametrize(
    ("moment", "repeats"), [(VIEW_HAS_COMMITTED, 0), (PUBLISHER_HAS_IT, 0), (SENT_BUT_NOT_RECORDED, 1)]
)
def test_a_killed_worker_leaves_its_committed_event_to_the_relay(
    moment: str, repeats: int, oracle: Oracle, start_web: StartWeb
) -> None:
    web = start_web(launcher=sabotage("kill-before", moment), **ONE_WORKER)
    (worker,) = web.workers()
    oracle.shopper(web.url).place_order()
    wait_until(lambda: not worker.is_running())
    figures = oracle.settle_and_compare()
    assert (figures.orders, figures.notifications, figures.repeats) == (1, 1, repeats)
    assert database.published_paths(database.last_order_id()) == ["relay"]


@pytest.mark.parametrize("end", ["fail-after", "kill-after"])
def test_a_rolled_back_order_leaves_no_row_and_no_message(end: str, oracle: Oracle, start_web: StartWeb) -> None:
    web = start_web(launcher=sabotage(end, ORDER_RECORDED), **ONE_WORKER)
    rows_before = database.value("SELECT count(*) FROM events_outboxevent")
    shopper = oracle.shopper(web.url)
    key = str(uuid4())
    assert shopper.place_order(key=key) is None
    assert wait_until(lambda: shopper.place_order(key=key))
    figures = oracle.settle_and_compare()
    assert (figures.orders, figures.notifications) == (1, 1)
    assert database.value("SELECT count(*) FROM events_outboxevent") == rows_before + 1
    told_of = {message.key for message in read_topic("order-events") if message.header.get("ce_source") == b"/orders"}
    assert told_of <= {str(order_id).encode() for (order_id,) in database.rows("SELECT id FROM orders_order")}
