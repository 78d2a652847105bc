"""The carrier: what shipping needs of it, and its client over HTTP (docs/providers.md).

The setting `SHIPPING_PROVIDER` is the dotted path of a class, by default `HTTPShipments`. An object of the class is a
context manager, which gives a `ShippingProvider`.
"""

from collections.abc import Sequence
from typing import Literal, Protocol
from uuid import UUID

import msgspec
from django.conf import settings

from events.work.calling import Provider
from shipping.messages import Item


class Shipment(msgspec.Struct, frozen=True):
    """A carrier's answer: what has become of a shipment."""

    state: Literal["booked", "refused", "cancelled", "voided"]
    """`voided`: nothing was booked under this id, and nothing ever will be."""
    reason: str = ""


class ShippingProvider(Protocol):
    """The methods of a carrier that shipping calls. Several threads use one object.

    The methods raise what `events.work.calling.Provider.post` raises.
    """

    def shipment(self, booking_id: UUID) -> Shipment | None:
        """Return the shipment; None if the carrier does not know it."""

    def book(self, booking_id: UUID, *, items: Sequence[Item], reference: int) -> Shipment:
        """Book the shipment, and return it; return the earlier shipment if this id was used before.

        If the carrier refuses the booking, the returned shipment has the state `refused`.
        """

    def cancel(self, booking_id: UUID) -> Shipment:
        """Cancel the shipment, or make sure that it is never booked. Return the shipment.

        If the carrier refuses the cancellation, the returned shipment has the state `booked`.
        """


class HTTPShipments(Provider[Shipment]):
    def __init__(self) -> None:
        super().__init__(
            url_setting="SHIPPING_PROVIDER_URL",
            answer_type=Shipment,
            timeout_s=settings.SHIPPING_PROVIDER_TIMEOUT,
        )

    def shipment(self, booking_id: UUID) -> Shipment | None:
        return self.get(f"/shipments/{booking_id}")

    def book(self, booking_id: UUID, *, items: Sequence[Item], reference: int) -> Shipment:
        body = {"items": items, "reference": reference}
        return self.post("/shipments", key=booking_id, body=body, answers={200, 201, 402, 409})

    def cancel(self, booking_id: UUID) -> Shipment:
        return self.post(f"/shipments/{booking_id}/cancellation", key=booking_id, answers={200, 409})
