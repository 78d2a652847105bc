"""The time from a checkout until its order is paid and shipped, at a load of 100 checkouts a second."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

from django.conf import settings

from benchmarks import database
from benchmarks.comparison import Pair
from benchmarks.load import ORDER, Connection, request
from benchmarks.servers import Servers, running
from testkit.customer import Customer
from testkit.participants.provider import ProviderProcess
from testkit.waiting import wait_until

ROUNDS = 3
LOAD_S = 30
CHECKOUTS_PER_SECOND = 100
PROVIDER_LATENCY_MS = 50
CONNECTIONS = 8
WARM_UP_CHECKOUTS = 200
TIMEOUT_S = 120
"""Longest wait for a condition, in seconds, before the benchmark fails. It should come true much earlier."""


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    """Start the processes that handle an order, and measure checkouts in `ROUNDS` rounds.

    For each round, yield the name of the row in the table of results, and the product's figure, which is compared with
    nothing. The figure is the 99th percentile of the seconds from the moment at which a checkout is due until its order
    is paid and shipped. `wanted` is not used, because there is only one row.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        provider = ProviderProcess(Path(folder, "book.sqlite3"), PROVIDER_LATENCY_MS=str(PROVIDER_LATENCY_MS))
        stack.callback(provider.kill)
        web = stack.enter_context(running(servers.web(**provider.env)))
        groups = (settings.NOTIFICATION_CONSUMER_GROUP, "sales", "payments", "shipping", "fulfilment")
        for command in (("consume", *groups), ("run_fulfilment",), ("relay_outbox",)):
            stack.enter_context(running(servers.start("django", *command, **provider.env)))
        customer = Customer(web.url)
        _seconds_to_rest(web.url, customer, checkouts=WARM_UP_CHECKOUTS)
        for _ in range(ROUNDS):
            seconds = _seconds_to_rest(web.url, customer, checkouts=LOAD_S * CHECKOUTS_PER_SECOND)
            yield "checkouts-p99", Pair(quantiles(seconds, n=100)[-1], 1)


def _seconds_to_rest(site: str, customer: Customer, *, checkouts: int) -> list[float]:
    """Place orders, and check them out at a fixed rate.

    Return the seconds from the time at which each checkout was due until its fulfilment was completed.
    """
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        shares = [checkouts // CONNECTIONS + (number < checkouts % CONNECTIONS) for number in range(CONNECTIONS)]
        list(threads.map(lambda share: _place_orders(site, customer, share), shares))
        orders = [order for (order,) in database.rows(UNTOUCHED, user=customer.id)]
        started_at = time.time()
        # Each connection has a fixed share of the checkouts, so a slow answer delays its later requests. The time of
        # a checkout counts from the moment at which its request was due.
        due = {order: started_at + number / CHECKOUTS_PER_SECOND for number, order in enumerate(orders)}
        list(
            threads.map(
                lambda first: _check_out(site, customer, orders[first::CONNECTIONS], due),
                range(CONNECTIONS),
            )
        )
    wait_until(lambda: database.value(UNDER_WAY) == 0, timeout=TIMEOUT_S)
    completed = dict(database.rows(COMPLETED, orders=orders))
    assert completed.keys() == due.keys(), f"{len(due.keys() - completed.keys())} checkouts have not completed"
    return [(at - datetime.fromtimestamp(due[order], UTC)).total_seconds() for order, at in completed.items()]


UNTOUCHED = """
    SELECT id FROM orders_order LEFT JOIN fulfilment_fulfilment ON order_id = id
    WHERE user_id = %(user)s AND order_id IS NULL ORDER BY id
    """
UNDER_WAY = "SELECT count(*) FROM fulfilment_fulfilment WHERE state NOT IN ('COMPLETED', 'CANCELLED')"
COMPLETED = """
    SELECT order_id, changed_at FROM fulfilment_fulfilment WHERE state = 'COMPLETED' AND order_id = ANY(%(orders)s)
    """


def _place_orders(site: str, customer: Customer, count: int) -> None:
    connection = Connection(site)
    order = request("POST", "/api/orders", token=customer.token, body=ORDER)
    for _ in range(count):
        connection.ask(order)
    connection.close()


def _check_out(site: str, customer: Customer, orders: Sequence[int], due: dict[int, float]) -> None:
    connection = Connection(site)
    for order in orders:
        time.sleep(max(0.0, due[order] - time.time()))
        path = f"/api/orders/{order}/checkout"
        connection.ask(request("POST", path, token=customer.token, body={"paymentToken": "tok_ok"}))
    connection.close()
