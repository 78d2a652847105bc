"""A payment provider and a carrier in the test's process, which fail as planned.

They use the book of the development provider.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum
from types import TracebackType
from typing import Any, ClassVar, Self
from uuid import UUID

from commerce.devserver.provider.book import Book, Entry
from events.work.calling import OutcomeUnknown
from events.work.outcomes import ServiceUnavailable
from payments.providers import Payment
from shipping.messages import Item
from shipping.providers import Shipment
from tests.model.interference import Crash


class CallOutcome(Enum):
    """The outcome of a call: whether the provider carries it out, and which answer the worker gets."""

    ANSWERED = "done, and answered"
    AWAY = "not done, because the provider cannot be reached"
    NOT_DONE = "not done, and not answered"
    DONE = "done, and not answered"
    ADRIFT = "not answered, and done later, when `BookProvider.let_one_arrive` is called"
    KILLED_BEFORE = "not done, and the worker dies"
    KILLED_AFTER = "done, and the worker dies"
    FORGOTTEN = "done, but a question is answered as if the provider knew nothing"


class BookProvider:
    """The provider's book of payments and shipments. The test plans the outcomes of the workers' calls."""

    def __init__(self) -> None:
        self.book = Book(":memory:")
        self._outcome = CallOutcome.ANSWERED
        self._adrift: list[Callable[[], Entry]] = []

    @contextmanager
    def answering(self, outcome: CallOutcome) -> Any:
        """Within the block, give each call this outcome."""
        self._outcome = outcome
        try:
            yield
        finally:
            self._outcome = CallOutcome.ANSWERED

    def let_one_arrive(self, index: int) -> None:
        """Execute one of the delayed calls (`CallOutcome.ADRIFT`), if any is left.

        `index` counts from the oldest call (0), modulo the number of delayed calls.
        """
        if self._adrift:
            self._adrift.pop(index % len(self._adrift))()

    def let_all_arrive(self) -> None:
        while self._adrift:
            self.let_one_arrive(0)

    def find(self, service: str, key: UUID) -> Entry | None:
        return self._call(lambda: self.book.find(service, str(key)), is_question=True)

    def make(self, service: str, key: UUID, body: dict[str, Any]) -> Entry:
        return self._call(lambda: self.book.make(service, str(key), body)[0])

    def undo(self, service: str, key: UUID) -> Entry:
        return self._call(lambda: self.book.undo(service, str(key)))

    def _call(self, act: Callable[[], Any], *, is_question: bool = False) -> Any:
        match self._outcome:
            case CallOutcome.AWAY:
                raise ServiceUnavailable(self._outcome.value)
            case CallOutcome.KILLED_BEFORE:
                raise Crash
            case CallOutcome.ADRIFT if not is_question:
                self._adrift.append(act)
                raise OutcomeUnknown(self._outcome.value)
            case CallOutcome.NOT_DONE:
                raise OutcomeUnknown(self._outcome.value)
            case CallOutcome.FORGOTTEN if is_question:
                return None
        entry = act()
        if self._outcome is CallOutcome.KILLED_AFTER:
            raise Crash
        if self._outcome is CallOutcome.DONE:
            raise OutcomeUnknown(self._outcome.value)
        return entry


class _Session:
    """Base class of `Payments` and `Shipments`. A worker creates an object of each without arguments.

    The model test names the two classes in the settings `PAYMENT_PROVIDER` and `SHIPPING_PROVIDER`.
    """

    provider: ClassVar[BookProvider]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Do nothing: there is no connection."""


class Payments(_Session):
    """A `payments.providers.PaymentProvider` that calls the test's `BookProvider` instead of a service."""

    def payment(self, charge_id: UUID) -> Payment | None:
        entry = self.provider.find("payments", charge_id)
        return entry and self._payment(entry)

    def charge(self, charge_id: UUID, *, amount: Decimal, token: str, reference: int) -> Payment:
        body = {"amount": str(amount), "token": token, "reference": reference}
        return self._payment(self.provider.make("payments", charge_id, body))

    def refund(self, charge_id: UUID) -> Payment:
        return self._payment(self.provider.undo("payments", charge_id))

    def _payment(self, entry: Entry) -> Payment:
        return Payment(state=entry.state, reason=entry.reason)


class Shipments(_Session):
    """A `shipping.providers.ShippingProvider` that calls the test's `BookProvider` instead of a service."""

    def shipment(self, booking_id: UUID) -> Shipment | None:
        entry = self.provider.find("shipments", booking_id)
        return entry and self._shipment(entry)

    def book(self, booking_id: UUID, *, items: Sequence[Item], reference: int) -> Shipment:
        listed = [{"productId": item.product_id, "quantity": item.quantity} for item in items]
        return self._shipment(self.provider.make("shipments", booking_id, {"items": listed, "reference": reference}))

    def cancel(self, booking_id: UUID) -> Shipment:
        return self._shipment(self.provider.undo("shipments", booking_id))

    def _shipment(self, entry: Entry) -> Shipment:
        return Shipment(state=entry.state, reason=entry.reason)
