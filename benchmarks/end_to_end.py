"""The time from the answer to a POST until the API shows the notification, at a load of 50 orders a second."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from statistics import median, quantiles

from django.conf import settings

from benchmarks.comparison import Pair
from benchmarks.load import ORDER, Connection, request
from benchmarks.servers import Servers, running
from events.kafka.lag import CaughtUp
from testkit.customer import Customer
from testkit.waiting import wait_until

ROUNDS = 3
LOAD_S = 30
ORDERS_PER_SECOND = 50
POLL_INTERVAL_S = 0.002
"""Seconds between two requests for the list of notifications."""
SHORT_LIST = 10
"""Number of notifications that a request lists. If all of them are new, the next request lists 100.

Listing 100 each time would keep a core busy.
"""
TIMEOUT_S = 120
"""Longest time in seconds that the benchmark waits for a condition before it fails. Most waits are much shorter."""


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    with (
        running(servers.web()) as web,
        running(servers.start("django", "consume_order_events")),
        running(servers.start("django", "relay_outbox")),
    ):
        customer = Customer(web.url)
        # First the consumer joins its group. Then it consumes the events that other benchmarks have left.
        first = customer.place_order()["id"]
        wait_until(lambda: customer.notifications(first), timeout=TIMEOUT_S)
        with closing(CaughtUp(topic=settings.ORDER_EVENTS_TOPIC, group=settings.NOTIFICATION_CONSUMER_GROUP)) as done:
            wait_until(done, timeout=TIMEOUT_S)
        for _ in range(ROUNDS):
            delays = sorted(_delays(web.url, customer))
            yield "end-to-end-p50", Pair(median(delays), 1)
            yield "end-to-end-p99", Pair(quantiles(delays, n=100)[-1], 1)


def _delays(site: str, customer: Customer) -> list[float]:
    """Place orders for `LOAD_S` seconds, and return the delay of the notification of each order in milliseconds.

    The delay is the time from the answer to the POST until the API shows the notification.
    """
    answered: dict[int, float] = {}
    seen: dict[int, float] = {}
    placed_all = threading.Event()
    watcher = threading.Thread(target=_watch, args=(site, customer, answered, seen, placed_all), daemon=True)
    watcher.start()
    connection = Connection(site)
    order = request("POST", "/api/orders", token=customer.token, body=ORDER)
    started_at = time.perf_counter()
    for number in range(LOAD_S * ORDERS_PER_SECOND):
        time.sleep(max(0.0, started_at + number / ORDERS_PER_SECOND - time.perf_counter()))
        order_id = json.loads(connection.ask(order))["id"]
        answered[order_id] = time.perf_counter()
    placed_all.set()
    watcher.join(TIMEOUT_S)
    if watcher.is_alive():
        raise TimeoutError(f"{len(answered.keys() - seen.keys())} orders have no notification in the API")
    connection.close()
    # The watcher may see the notification before this thread has read the answer.
    return [max(0.0, seen[order_id] - at) * 1000 for order_id, at in answered.items()]


def _watch(
    site: str, customer: Customer, answered: dict[int, float], seen: dict[int, float], placed_all: threading.Event
) -> None:
    connection = Connection(site)
    few, many = (
        request("GET", f"/api/notifications?limit={limit}", token=customer.token) for limit in (SHORT_LIST, 100)
    )
    look = few
    while not (placed_all.is_set() and seen.keys() >= answered.keys()):
        listed = json.loads(connection.ask(look))
        now = time.perf_counter()
        known = len(seen)
        for notification in listed:
            seen.setdefault(notification["orderId"], now)
        look = many if len(seen) - known >= SHORT_LIST else few
        time.sleep(POLL_INTERVAL_S)
    connection.close()
