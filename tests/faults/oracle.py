"""An oracle records which changes the product has acknowledged, and compares its record with the product's data."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from typing import Any, NamedTuple

import httpx
from django.conf import settings

from events.kafka import KafkaUnreachable
from events.kafka.lag import group_lag
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID
from testkit import database
from testkit.customer import Customer
from testkit.waiting import wait_until
from tests.faults import comparison
from tests.faults.comparison import Figures

SETTLE_TIMEOUT_S = 120
"""Longest time from the end of the last fault until no event is pending or unread any more, in seconds."""
EVENT_OF_ACTION = {"pay": ORDER_PAID, "cancel": ORDER_CANCELLED}
ORDER_ACTIONS: tuple[tuple[str, ...], ...] = ((), ("pay",), ("pay", "cancel"), ("cancel",))
"""The changes that a customer makes to an order after placing it. The next order takes the next tuple, in a cycle."""


class Acknowledged(NamedTuple):
    order_id: int
    event_type: str


class Shopper:
    """A customer of one web server. The oracle records the results of `place_order` and `change`.

    A shopper is not thread-safe.
    """

    def __init__(self, oracle: "Oracle", customer: Customer, site: str) -> None:
        self.user_id = customer.id
        self._oracle = oracle
        self._http = httpx.Client(base_url=site, headers=customer.http.headers, timeout=20, trust_env=False)

    def place_order(self, *, key: str | None = None, product_id: int = 1) -> int | None:
        """Place an order and return its id; None without an answer or after a 5xx. `key` is an Idempotency-Key.

        Raises AssertionError after any other answer than 201.
        """
        items = [{"productId": product_id, "quantity": 2, "price": 100}]
        headers = {} if key is None else {"Idempotency-Key": key}
        order = self._post("/api/orders", {"items": items}, headers, expected=201)
        if order is None:
            self._oracle.unanswered.append(self.user_id)
            return None
        self._oracle.acknowledged.append(Acknowledged(order["id"], ORDER_CREATED))
        return int(order["id"])

    def change(self, order_id: int, action: str) -> bool:
        """Apply `action`, `pay` or `cancel`. Return True after a 200, and False without an answer or after a 5xx.

        Raises AssertionError after any other answer.
        """
        if self._post(f"/api/orders/{order_id}/{action}", None, {}, expected=200) is None:
            return False
        self._oracle.acknowledged.append(Acknowledged(order_id, EVENT_OF_ACTION[action]))
        return True

    def request(
        self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response | None:
        """Send a request, and return the answer; None without an answer or after a 5xx.

        The oracle does not record the result. Several threads may call this method at once. Only one
        thread at a time may call the other methods.
        """
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            return None
        return None if response.status_code >= 500 else response

    def _post(self, path: str, body: Any, headers: Mapping[str, str], *, expected: int) -> Any:
        response = self.request("POST", path, body=body, headers=headers)
        if response is None:
            return None
        assert response.status_code == expected, response.text
        return response.json()

    def finds_a_worker_that_answers(self) -> bool:
        """Return whether the worker of this connection answers within 0.5 s. If not, the connection is replaced."""
        try:
            return self._http.get("/health/live", timeout=0.5).status_code == 200
        except httpx.TransportError:
            return False

    def leave(self) -> None:
        self._http.close()


class Oracle:
    """Records the changes that `customers` make to orders in one test, and that the API acknowledges.

    No other code may place orders for these customers meanwhile, because the comparison would report those orders.
    """

    def __init__(self, customers: Sequence[Customer]) -> None:
        self._customers = cycle(customers)
        self._number_of_customers = len(customers)
        self.started_after: int = database.value("SELECT coalesce(max(id), 0) FROM orders_order")
        """Orders with ids up to and including this one are older than this oracle."""
        self._shoppers: list[Shopper] = []
        self.acknowledged: list[Acknowledged] = []
        """The acknowledged changes, in the order of their answers."""
        self.unanswered: list[int] = []
        """User ids, one for each request to place an order that got no answer or a 5xx."""

    def shopper(self, site: str) -> Shopper:
        """Return a shopper for the next customer, at the web server with this URL."""
        self._shoppers.append(Shopper(self, next(self._customers), site))
        return self._shoppers[-1]

    @contextmanager
    def shopping(self, site: str) -> Iterator[None]:
        """Within the block, let all customers place, pay and cancel orders.

        A customer that gets no answer goes on with a new order.
        """
        closing = threading.Event()

        def shop(shopper: Shopper) -> None:
            for actions in cycle(ORDER_ACTIONS):
                if closing.is_set():
                    return
                order_id = shopper.place_order()
                if order_id is None:
                    closing.wait(0.05)
                    continue
                # `all` stops at a change without an answer: the order's status is then unknown.
                all(shopper.change(order_id, action) for action in actions)

        with ThreadPoolExecutor() as threads:
            shops = [threads.submit(shop, self.shopper(site)) for _ in range(self._number_of_customers)]
            try:
                yield
            finally:
                closing.set()
            for finished in shops:
                finished.result()

    def wait_for_more(self, count: int) -> None:
        """Wait until the API has acknowledged `count` more changes of orders."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal)

    def place_orders(self, site: str, count: int, *, at_once: int = 1) -> list[float]:
        """Place `count` orders, `at_once` of them concurrently, and return the seconds that each took.

        `count` must be a multiple of `at_once`. Raises AssertionError if an answer is not 201.
        """

        def place_share(shopper: Shopper) -> list[float]:
            durations = []
            for _ in range(count // at_once):
                started = time.perf_counter()
                assert shopper.place_order() is not None, "an order was not answered with 201"
                durations.append(time.perf_counter() - started)
            return durations

        with ThreadPoolExecutor() as threads:
            shares = threads.map(place_share, [self.shopper(site) for _ in range(at_once)])
            return [duration for share in shares for duration in share]

    def settle_and_compare(self) -> Figures:
        """Wait until no event is pending or unread. Then compare the answers to the customers with the product's data.

        Raises AssertionError, with a list of the differences, if the data differ from the answers. Raises it also if an
        event is still pending or unread after `SETTLE_TIMEOUT_S`.
        """
        try:
            wait_until(_settled, timeout=SETTLE_TIMEOUT_S)
        except TimeoutError as error:
            raise AssertionError(
                f"The site has not settled: {database.pending()} events pending, lag {lag()}"
            ) from error
        return comparison.compare(
            user_ids=self.user_ids,
            started_after=self.started_after,
            acknowledged=self.acknowledged,
            unanswered=self.unanswered,
        )

    @property
    def user_ids(self) -> list[int]:
        return sorted({shopper.user_id for shopper in self._shoppers})

    def close(self) -> None:
        for shopper in self._shoppers:
            shopper.leave()


def lag() -> int | None:
    """Return the lag of the notifications' group on the topic of order events; None if Kafka does not answer."""
    try:
        partitions = group_lag(topic=settings.ORDER_EVENTS_TOPIC, group=settings.NOTIFICATION_CONSUMER_GROUP)
    except KafkaUnreachable:
        return None
    return sum(one.end_offset if one.lag is None else one.lag for one in partitions)


def _settled() -> bool:
    # Look at the outbox again after the lag: a dead letter's copy is recorded just before its offset is committed.
    return database.pending() == 0 and lag() == 0 and database.pending() == 0
