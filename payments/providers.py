"""The payment provider: what payments need of it, and its client over HTTP (docs/providers.md).

The setting `PAYMENT_PROVIDER` is the dotted path of a class, by default `HTTPPayments`. An object of the class is a
context manager, which gives a `PaymentProvider`.
"""

from decimal import Decimal
from typing import Literal, Protocol
from uuid import UUID

import msgspec
from django.conf import settings

from events.work.calling import Provider


class Payment(msgspec.Struct, frozen=True):
    """A provider's answer: what has become of a payment."""

    state: Literal["charged", "declined", "refunded", "voided"]
    """`voided`: nothing was charged under this id, and nothing ever will be."""
    reason: str = ""


class PaymentProvider(Protocol):
    """The methods of a payment provider that payments call. Several threads use one object.

    The methods raise what `events.work.calling.Provider.post` raises.
    """

    def payment(self, charge_id: UUID) -> Payment | None:
        """Return the payment; None if the provider does not know it."""

    def charge(self, charge_id: UUID, *, amount: Decimal, token: str, reference: int) -> Payment:
        """Charge the amount, and return the payment; return the earlier payment if this id was used before."""

    def refund(self, charge_id: UUID) -> Payment:
        """Refund the payment, or make sure that it is never charged. Return the payment.

        If the provider refuses the refund, the state of the returned payment is `charged`.
        """


class HTTPPayments(Provider[Payment]):
    def __init__(self) -> None:
        super().__init__(
            url_setting="PAYMENT_PROVIDER_URL",
            answer_type=Payment,
            timeout_s=settings.PAYMENT_PROVIDER_TIMEOUT,
        )

    def payment(self, charge_id: UUID) -> Payment | None:
        return self.get(f"/payments/{charge_id}")

    def charge(self, charge_id: UUID, *, amount: Decimal, token: str, reference: int) -> Payment:
        body = {"amount": amount, "token": token, "reference": reference}
        return self.post("/payments", key=charge_id, body=body, answers={200, 201, 402, 409})

    def refund(self, charge_id: UUID) -> Payment:
        return self.post(f"/payments/{charge_id}/refund", key=charge_id, answers={200, 409})
