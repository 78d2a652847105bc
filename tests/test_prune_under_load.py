"""`prune_events` is killed repeatedly under load. Each event is then stored exactly once, in outbox or history."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.subscriptions import subscriptions
from testkit import database
from testkit.customer import Customer
from testkit.processes import ProductProcess, WebServer
from testkit.servers import Broker
from testkit.waiting import wait_until

ROUNDS = 4
ORDERS_PER_ROUND = 15
STORED = """
    SELECT stream, sequence, count(*) FROM (
        SELECT stream, sequence FROM events_outboxevent UNION ALL SELECT stream, sequence FROM orders_orderhistory
    ) AS stored
    WHERE stream = ANY(%(streams)s) GROUP BY stream, sequence
    """


@pytest.fixture
def site(broker: Broker, site_database: None, tmp_path: Path) -> Iterator[WebServer]:
    """Start the web server, a consumer of every group, and the relay, on the session's database and default topics."""
    processes = [
        # Every group must have handled a row before it is moved.
        ProductProcess("django", "consume", *(one.group for one in subscriptions()), log=tmp_path / "consumer.log"),
        ProductProcess("django", "relay_outbox", log=tmp_path / "relay.log"),
    ]
    web = WebServer(log=tmp_path / "web.log")
    yield web
    for process in (web, *processes):
        process.kill()


def kill_when_it_has_moved_rows(prune: ProductProcess, *, before: int) -> None:
    """Kill `prune` once the table `orders_orderhistory` has more than `before` rows, or return if `prune` has ended."""
    sql = "SELECT count(*) FROM orders_orderhistory"
    wait_until(lambda: prune.process.poll() is not None or database.value(sql) > before)
    prune.kill()


def history_of(orders: list[int]) -> int:
    streams = [f"order-{order_id}" for order_id in orders]
    sql = "SELECT count(*) FROM orders_orderhistory WHERE stream = ANY(%(streams)s)"
    return int(database.value(sql, streams=streams))


def test_prunes_that_are_killed_lose_and_double_nothing(site: WebServer, tmp_path: Path) -> None:
    customer = Customer(site.url)
    orders: list[int] = []
    moved = database.value("SELECT count(*) FROM orders_orderhistory")
    for number in range(ROUNDS):
        # A row is old enough at once, so that each prune moves what the consumer has just handled.
        prune = ProductProcess("django", "prune_events", "--older-than", "1s", log=tmp_path / f"prune-{number}.log")
        for _ in range(ORDERS_PER_ROUND):
            order_id = customer.place_order()["id"]
            orders.append(order_id)
            customer.change(order_id, "pay")
        kill_when_it_has_moved_rows(prune, before=moved)
        moved = database.value("SELECT count(*) FROM orders_orderhistory")

    expected = {(f"order-{order_id}", sequence, 1) for order_id in orders for sequence in (1, 2)}
    streams = [f"order-{order_id}" for order_id in orders]
    assert set(database.rows(STORED, streams=streams)) == expected

    def all_moved() -> bool:
        log = tmp_path / "last-prune.log"
        last = ProductProcess("django", "prune_events", "--older-than", "1s", log=log)
        assert last.process.wait(60) == 0, log.read_text()
        return history_of(orders) == len(expected)

    wait_until(all_moved, timeout=60)
    assert set(database.rows(STORED, streams=streams)) == expected
    events = customer.events(orders[0])
    assert [(one["sequence"], one["state"]) for one in events] == [(1, "NOTIFIED"), (2, "NOTIFIED")]
    wrong = ProductProcess("django", "verify_orders", log=tmp_path / "verify.log")
    wrong.process.wait(60)
    said = (tmp_path / "verify.log").read_text()
    # Other tests' orders in this database may have been changed on purpose.
    assert not [order_id for order_id in orders if re.search(rf"\b(Order |order-){order_id}\b", said)], said
