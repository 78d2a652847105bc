"""From POST to GET through real processes: web server, consumer, relay, broker and database."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import httpx
import pytest

from orders.events import encode
from testkit.customer import Customer
from testkit.factories import OrderEventFactory
from testkit.kafka_client import produce, read_topic
from testkit.processes import ProductProcess, WebServer
from testkit.servers import Broker
from testkit.waiting import wait_until

NOTIFICATION_TIMEOUT_S = 5
"""Longest time from a change of an order to its notification, in seconds."""
CONSUME = ("django", "consume_order_events")
RELAY = ("django", "relay_outbox")


class Site(NamedTuple):
    web: WebServer
    consumer: ProductProcess
    relay: ProductProcess


@pytest.fixture(scope="module")
def site(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a web server, a consumer of notifications and a relay, on the session's database and the default topics.

    An order has already become a notification when the tests begin.
    """
    logs = tmp_path_factory.mktemp("logs")
    site = Site(
        web=WebServer(log=logs / "web.log"),
        consumer=ProductProcess(*CONSUME, log=logs / "consumer.log"),
        relay=ProductProcess(*RELAY, log=logs / "relay.log"),
    )
    first = Customer(site.web.url)
    order = first.place_order()
    # The first consumer on a new broker waits until Kafka has created its topic of offsets.
    wait_until(lambda: first.notifications(order["id"]))
    yield site
    for process in site:
        process.kill()
        print(process.log.read_text())


@pytest.fixture
def customer(site: Site, broker: Broker) -> Customer:
    return Customer(site.web.url)


def all_notified(customer: Customer, order_ids: list[int]) -> bool:
    return set(order_ids) <= {one["orderId"] for one in customer.notifications()}


def types(notifications: list[dict[str, str]]) -> list[str]:
    return [one["type"] for one in notifications]


def test_an_order_becomes_a_notification_in_time(customer: Customer) -> None:
    order = customer.place_order(price="25000")
    (notification,) = wait_until(lambda: customer.notifications(order["id"]), timeout=NOTIFICATION_TIMEOUT_S)
    assert notification["type"] == "ORDER_CREATED"
    assert notification["userId"] == customer.id
    assert notification["message"] == f"주문이 생성되었습니다. 주문번호: {order['id']}, 금액: 50000.00원"


def test_paying_and_cancelling_are_notified_in_order(customer: Customer) -> None:
    order = customer.place_order()
    customer.change(order["id"], "pay")
    customer.change(order["id"], "cancel")
    wait_until(lambda: len(customer.notifications(order["id"])) == 3, timeout=NOTIFICATION_TIMEOUT_S)
    assert types(customer.notifications(order["id"])) == ["ORDER_CANCELLED", "ORDER_PAID", "ORDER_CREATED"]


def test_an_independent_client_reads_the_event_of_the_contract(customer: Customer) -> None:
    order = customer.place_order()
    wait_until(lambda: customer.notifications(order["id"]))
    (event,) = customer.events(order["id"])
    message = next(one for one in read_topic("order-events") if one.header.get("ce_id") == event["eventId"].encode())
    assert (message.partition, message.offset) == (event["partition"], event["offset"])
    assert message.key == str(order["id"]).encode()
    assert (
        message.value
        == (
            f'{{"eventId":"{event["eventId"]}","eventType":"ORDER_CREATED","timestamp":"{order["createdAt"]}",'
            f'"orderId":{order["id"]},"userId":{customer.id},"totalAmount":200.00}}'
        ).encode()
    )
    assert message.header["ce_sequence"] == b"1"
    assert message.header["ce_time"] == order["createdAt"].encode()


def test_the_timeline_follows_an_event(customer: Customer, site: Site) -> None:
    order = customer.place_order()
    wait_until(lambda: customer.events(order["id"])[0]["state"] == "NOTIFIED")
    (event,) = customer.events(order["id"])
    assert list(event) == [
        *("eventId", "eventType", "sequence", "timestamp", "state"),
        *("publishedAt", "topic", "partition", "offset", "notificationId"),
    ]
    assert (event["sequence"], event["timestamp"], event["topic"]) == (1, order["createdAt"], "order-events")
    assert event["notificationId"] == customer.notifications(order["id"])[0]["id"]


def test_a_message_without_headers_becomes_a_notification(customer: Customer) -> None:
    event = OrderEventFactory.build(order_id=2**62, user_id=customer.id)
    produce("order-events", encode(event))
    (notification,) = wait_until(lambda: customer.notifications(2**62))
    assert UUID(notification["eventId"]) == event.event_id


def test_garbage_becomes_a_dead_letter_and_the_consumer_lives(customer: Customer, site: Site) -> None:
    garbage = f"garbage for {customer.id}".encode()
    produce("order-events", garbage)
    wait_until(lambda: garbage in [message.value for message in read_topic("order-events-dlt")])
    order = customer.place_order()
    wait_until(lambda: customer.notifications(order["id"]))
    assert site.consumer.process.poll() is None


def test_a_stopped_consumer_catches_up(customer: Customer, site: Site) -> None:
    assert site.consumer.stop() == 0
    orders = [customer.place_order()["id"] for _ in range(10)]
    assert customer.notifications() == []
    site.consumer.start()
    wait_until(lambda: len(customer.notifications()) == 10)
    assert sorted(one["orderId"] for one in customer.notifications()) == orders


def test_orders_placed_without_kafka_are_notified_later(customer: Customer, site: Site, broker: Broker) -> None:
    broker.go_down()
    try:
        started = time.monotonic()
        orders = [customer.place_order()["id"] for _ in range(5)]
        assert time.monotonic() - started < 2
        customer.change(orders[0], "pay")
        assert {event["state"] for event in customer.events(orders[0])} == {"PENDING"}
    finally:
        broker.come_back()
    wait_until(lambda: len(customer.notifications()) == 6)
    assert types(customer.notifications(orders[0])) == ["ORDER_PAID", "ORDER_CREATED"]


@pytest.mark.parametrize("victim", ["web", "consumer", "relay"])
def test_kill_9_loses_nothing_and_doubles_nothing(customer: Customer, site: Site, victim: str) -> None:
    acknowledged: list[tuple[int, str]] = []
    killed_and_back = threading.Event()

    def place_orders() -> None:
        while not killed_and_back.is_set():
            with suppress(httpx.TransportError):
                order_id = customer.place_order()["id"]
                acknowledged.append((order_id, "ORDER_CREATED"))
                customer.change(order_id, "pay")
                acknowledged.append((order_id, "ORDER_PAID"))

    placing = threading.Thread(target=place_orders)
    placing.start()
    process: ProductProcess = getattr(site, victim)
    wait_until(lambda: len(acknowledged) > 20)
    process.kill()
    process.start()
    before = len(acknowledged)
    wait_until(lambda: len(acknowledged) > before + 20)
    killed_and_back.set()
    placing.join()

    def notified() -> Counter[tuple[int, str]]:
        return Counter((one["orderId"], one["type"]) for one in customer.all_notifications())

    wait_until(lambda: set(acknowledged) <= set(notified()))
    assert set(notified().values()) == {1}


def test_consumers_take_over_from_each_other(customer: Customer, site: Site, tmp_path: Path) -> None:
    others = [ProductProcess(*CONSUME, log=tmp_path / f"{number}.log") for number in range(2)]
    try:
        wait_until(lambda: all(process.says("Consuming order-events") for process in others))
        for process in (site.consumer, others[0]):
            assert process.stop() == 0, process.log.read_text()
            orders = [customer.place_order()["id"] for _ in range(15)]
            wait_until(partial(all_notified, customer, orders))
    finally:
        # A killed member keeps its partitions until its session times out, so one consumer leaves in order.
        assert others[1].stop() == 0
        others[0].kill()
        site.consumer.start()
    assert set(Counter(one["orderId"] for one in customer.notifications()).values()) == {1}


def test_the_healthy_processes_log_no_warning(customer: Customer, tmp_path: Path) -> None:
    web = WebServer(log=tmp_path / "web.log")
    alive = tmp_path / "alive"
    relay = ProductProcess(*RELAY, "--liveness-file", str(alive), log=tmp_path / "relay.log")
    try:
        # `python -m django` has no early signal handler: SIGTERM before the relay's loop would end it with -15.
        wait_until(alive.exists)
        other = Customer(web.url)
        order = other.place_order()
        wait_until(lambda: other.notifications(order["id"]))
        other.http.close()
    finally:
        assert [web.stop(), relay.stop()] == [0, 0]
    for process in (web, relay):
        assert not process.says("WARNING"), process.log.read_text()
        assert not process.says("ERROR"), process.log.read_text()
