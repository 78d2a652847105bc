"""Customers who check their orders out, and the comparison of all checkouts with the provider's book."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple

from events.kafka import KafkaUnreachable
from events.kafka.lag import group_lag
from testkit import database
from testkit.database import rows
from testkit.participants.provider import ProviderUnderTest
from testkit.waiting import wait_until
from tests.faults.oracle import Oracle, Shopper

GROUPS = {"payments": "payment-commands", "shipping": "shipping-commands", "fulfilment": "fulfilment-replies"}
CONSUME_FULFILMENT = ("django", "consume", *GROUPS)
WORK_FULFILMENT = ("django", "run_fulfilment")
UNSHIPPABLE = 9_000_000
TOKENS = (
    *("tok_ok", "tok_declined", "tok_ok", "tok_timeout_then_charged", "tok_ok", "tok_slow", "tok_ok"),
    *("tok_no_refund", "tok_ok", "tok_ok", "tok_ok"),
)
"""The payment tokens that the orders take in turns."""
UNSHIPPABLE_EACH, CANCELLED_EACH, DOUBLED_EACH, FOREIGN_EACH = 5, 3, 4, 7
"""A number n means that one in n orders is special: the order has a product that cannot be shipped, is cancelled, is
checked out twice at one moment, or is also checked out by another customer. The four numbers and `len(TOKENS)` are
pairwise coprime, so all combinations occur."""
LONGEST_THOUGHT_S = 1.5
"""Longest time from checkout to cancellation, in seconds. The times vary, so that cancellations come at every step."""
SETTLE_TIMEOUT_S = 150
STATES_OF_BOOK = {
    ("COMPLETED", "PAID"): {("charged", "booked")},
    ("CANCELLED", "CANCELLED"): {
        (payment, shipment)
        for payment in ("declined", "refunded", "voided")
        for shipment in ("", "refused", "cancelled", "voided")
    },
}
"""The states (payment, shipment) that the provider's book may have after a checkout has ended.

The keys are the allowed states of fulfilment and order, except for a stuck refund, which is checked separately. An
empty state in a value means that the book has no entry.
"""


def env_of(provider: ProviderUnderTest) -> dict[str, str]:
    """Return the environment variables for the consumers and workers of checkouts.

    These processes wait 1 s for an answer of the provider. They make at most 4 attempts to undo a payment or a
    shipment, with pauses of 7 s in all.
    """
    return {
        **provider.env,
        "PAYMENT_PROVIDER_TIMEOUT_SECONDS": "1",
        "SHIPPING_PROVIDER_TIMEOUT_SECONDS": "1",
        "FULFILMENT_UNDO_PAUSE": "1s",
        "FULFILMENT_UNDO_ATTEMPTS": "4",
    }


class AtRest(NamedTuple):
    """A completed, cancelled or stuck checkout, as the database and the provider's book have it.

    `state` is the fulfilment's. `status` and `amount` are the order's. `shipment` is the shipment's entry in the book;
    empty if the book has none.
    """

    order_id: int
    state: str
    status: str
    amount: Decimal
    payment: dict[str, Any]
    """The payment's entry in the provider's book; empty if the book has none."""
    shipment: dict[str, Any]

    @property
    def in_book(self) -> tuple[str, str]:
        return self.payment.get("state", ""), self.shipment.get("state", "")


class Checkouts:
    """The checkouts of one test. `oracle` records their orders."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._number = count()
        self.tokens: dict[int, str] = {}
        """The payment token of each checkout that was requested, by order id. A request may have got no answer."""
        self.acknowledged: set[int] = set()
        """The ids of the orders whose checkout was answered with 202."""

    @contextmanager
    def shopping(self, site: str, *, customers: int, pause_s: float = 0.2) -> Iterator[None]:
        """Within the block, let customers place orders and check them out, and cancel some of them.

        Each customer pauses for `pause_s` seconds before each order.
        """
        closing = threading.Event()
        shoppers = [self._oracle.shopper(site) for _ in range(customers)]

        def shop(number: int) -> None:
            while not closing.wait(pause_s):
                self.buy(shoppers[number], other=shoppers[number - 1], closing=closing)

        with ThreadPoolExecutor() as threads:
            shops = [threads.submit(shop, number) for number in range(customers)]
            try:
                yield
            finally:
                closing.set()
            for finished in shops:
                finished.result()

    def buy(self, shopper: Shopper, *, other: Shopper, closing: threading.Event | None = None) -> None:
        """Let `shopper` check out a new order, and then try to pay it, which is refused.

        The method returns early if no answer confirms the order or the checkout, as during an outage. The shopper
        checks some orders out twice at one moment, and cancels some. Another customer, `other`, tries to check some
        orders out, and gets 404. Before a cancellation, the shopper waits up to `LONGEST_THOUGHT_S`. There is no wait
        if `closing` is None, and the wait ends when `closing` is set.
        """
        number = next(self._number)
        product_id = UNSHIPPABLE if number % UNSHIPPABLE_EACH == 0 else 1
        order_id = shopper.place_order(product_id=product_id)
        if order_id is None:
            return
        self.tokens[order_id] = TOKENS[number % len(TOKENS)]
        path, body = f"/api/orders/{order_id}/checkout", {"paymentToken": self.tokens[order_id]}
        times = 2 if number % DOUBLED_EACH == 0 else 1
        with ThreadPoolExecutor(times) as threads:
            answers = list(threads.map(lambda _: shopper.request("POST", path, body=body), range(times)))
        statuses = sorted(answer.status_code for answer in answers if answer)
        assert statuses in ([], [202], [409], [202, 409]), statuses
        if statuses[:1] != [202]:
            # A request got no answer: it may have begun the fulfilment, or not.
            assert None in answers
            return
        self.acknowledged.add(order_id)
        self._expect(shopper, "POST", f"/api/orders/{order_id}/pay", 409)
        if number % FOREIGN_EACH == 0 and other.user_id != shopper.user_id:
            self._expect(other, "POST", path, 404, body=body)
            self._expect(other, "GET", f"/api/orders/{order_id}/fulfilment", 404)
        if number % CANCELLED_EACH == 0:
            if closing:
                closing.wait(number % 10 / 10 * LONGEST_THOUGHT_S)
            # The answer is 409 if the order is cancelled already.
            self._expect(shopper, "POST", f"/api/orders/{order_id}/cancel", 202, 409)

    def _expect(self, shopper: Shopper, method: str, path: str, *statuses: int, body: Any = None) -> None:
        answer = shopper.request(method, path, body=body)
        assert answer is None or answer.status_code in statuses, f"{method} {path}: {answer.status_code} {answer.text}"

    def wait_for_more(self, number: int) -> None:
        goal = len(self.acknowledged) + number
        wait_until(lambda: len(self.acknowledged) >= goal)

    def settle_and_compare(self, provider: ProviderUnderTest) -> Counter[str]:
        """Wait until each checkout is completed, cancelled or stuck, and compare all of them with the provider's book.

        Return the number of checkouts in each state.

        Raises AssertionError with a list of the differences, or after `SETTLE_TIMEOUT_S`.
        """
        try:
            wait_until(settled, timeout=SETTLE_TIMEOUT_S)
        except TimeoutError as error:
            raise AssertionError(f"The checkouts are not at rest: {unsettled()}") from error
        found = self._at_rest(provider)
        problems = [*self._lost(found), *self._wrong(found), *self._unknown(found, provider)]
        assert not problems, f"{len(problems)} problems, the first are: " + "; ".join(problems[:10])
        return Counter(one.state for one in found)

    def _at_rest(self, provider: ProviderUnderTest) -> list[AtRest]:
        payments, shipments = provider.book("payments"), provider.book("shipments")
        sql = """
            SELECT f.order_id, f.state, o.status, o.total_amount, payment.command_id::text, shipment.command_id::text
            FROM fulfilment_fulfilment AS f JOIN orders_order AS o ON o.id = f.order_id
            LEFT JOIN fulfilment_fulfilmentstep AS payment
                ON payment.fulfilment_id = f.order_id AND payment.step = 'PAYMENT'
            LEFT JOIN fulfilment_fulfilmentstep AS shipment
                ON shipment.fulfilment_id = f.order_id AND shipment.step = 'SHIPMENT'
            WHERE o.user_id = ANY(%(users)s) AND o.id > %(after)s
            """
        found = rows(sql, users=self._oracle.user_ids, after=self._oracle.started_after)
        return [
            AtRest(order_id, state, status, amount, payments.get(payment, {}), shipments.get(shipment, {}))
            for order_id, state, status, amount, payment, shipment in found
        ]

    def _lost(self, found: Sequence[AtRest]) -> Iterator[str]:
        ids = {one.order_id for one in found}
        for order_id in self.acknowledged - ids:
            yield f"the checkout of order {order_id} was acknowledged and is lost"
        for order_id in ids - set(self.tokens):
            yield f"order {order_id} has a fulfilment that no customer asked for"

    def _wrong(self, found: Sequence[AtRest]) -> Iterator[str]:
        for one in found:
            allowed = STATES_OF_BOOK.get((one.state, one.status), set())
            if self.tokens.get(one.order_id) == "tok_no_refund" and one.state == "STUCK_REFUND":
                allowed = {("charged", shipment) for shipment in ("", "refused", "cancelled", "voided")}
            if one.in_book not in allowed:
                yield f"{one} disagrees with the book"
            for entry in (one.payment, one.shipment):
                if len(set(entry.get("history", []))) < len(entry.get("history", [])):
                    yield f"{entry} was done or undone twice"
            if "amount" in one.payment and (Decimal(one.payment["amount"]), one.payment["reference"]) != (
                one.amount,
                one.order_id,
            ):
                yield f"{one.payment} is not the payment of order {one.order_id} over {one.amount}"

    def _unknown(self, found: Sequence[AtRest], provider: ProviderUnderTest) -> Iterator[str]:
        """Yield a sentence about each unexpected payment or shipment, and one if the sum of the charges is wrong.

        An entry of the provider's book is unexpected if it belongs to no step of these checkouts. The sum is right if
        it equals the total amount of the completed orders and of the orders whose refund is stuck.
        """
        known = {one.order_id: one for one in found}
        for service in ("payments", "shipments"):
            for entry in provider.book(service).values():
                reference = entry.get("reference", 0)
                if reference > self._oracle.started_after and (
                    reference not in known
                    or entry["id"] not in (known[reference].payment.get("id"), known[reference].shipment.get("id"))
                ):
                    yield f"{entry} belongs to no step"
        standing = sum(
            Decimal(entry["amount"])
            for entry in provider.book("payments").values()
            if entry["state"] == "charged" and entry["reference"] > self._oracle.started_after
        )
        expected = sum(one.amount for one in found if one.state in ("COMPLETED", "STUCK_REFUND"))
        if standing != expected:
            yield f"the book has charges of {standing}, and the completed or stuck orders are worth {expected}"


def unsettled() -> dict[str, int | None]:
    """Return how much is left until all checkouts are at rest, by name. A lag is None if Kafka does not answer."""
    sql = {
        "under way": "SELECT count(*) FROM fulfilment_fulfilment"
        " WHERE state NOT IN ('COMPLETED', 'CANCELLED', 'STUCK_REFUND', 'STUCK_SHIPMENT')",
        "payments": "SELECT count(*) FROM payments_paymentcommand WHERE state = 'pending'",
        "shipping": "SELECT count(*) FROM shipping_shippingcommand WHERE state = 'pending'",
    }
    left: dict[str, int | None] = {name: database.value(statement) for name, statement in sql.items()}
    left["outbox"] = database.pending()
    for group, topic in GROUPS.items():
        try:
            partitions = group_lag(topic=topic, group=group)
            left[f"lag of {group}"] = sum(one.end_offset if one.lag is None else one.lag for one in partitions)
        except KafkaUnreachable:
            left[f"lag of {group}"] = None
    return left


def settled() -> bool:
    # Look twice: a message may move from the outbox to a topic between two of the queries.
    return all(set(unsettled().values()) == {0} for _ in range(2))
