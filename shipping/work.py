"""The leased work (`events.work`) of shipping: the calls to the carrier that carry out the commands."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.utils.module_loading import import_string
from prometheus_client import Counter

from events.work.calling import judged
from events.work.commands import Answer
from events.work.kinds import Act, register
from events.work.outcomes import Done, Failed, Outcome
from shipping import messages
from shipping.messages import SHIPMENT_BOOKED, SHIPMENT_CANCELLED, SHIPMENT_REFUSED, BookShipment, CancelShipment
from shipping.models import ShippingCommand
from shipping.providers import ShippingProvider
from shipping.subscriptions import SHIPPING

NOTHING_BOOKED = ("cancelled", "voided")
"""The states of a shipment that make a cancellation a success. `voided`: there was no booking, and never will be."""


@contextmanager
def session() -> Iterator[Act[ShippingCommand]]:
    """Yield the function that carries out one command. All commands of this block share the carrier's connections."""
    with import_string(settings.SHIPPING_PROVIDER)() as provider:
        yield judged(lambda work: _do(provider, work))


def _do(provider: ShippingProvider, work: ShippingCommand) -> Outcome:
    match messages.decode(bytes(work.value)):
        case BookShipment() as command:
            return _book(provider, command, may_be_known=work.may_be_known)
        case CancelShipment() as command:
            return _cancel(provider, command, may_be_known=work.may_be_known)


def _book(provider: ShippingProvider, command: BookShipment, *, may_be_known: bool) -> Outcome:
    shipment = provider.shipment(command.command_id) if may_be_known else None
    if shipment is None:
        shipment = provider.book(command.command_id, items=command.items, reference=command.reference)
    if shipment.state == "booked":
        return Done(Answer(SHIPMENT_BOOKED))
    return Done(Answer(SHIPMENT_REFUSED, shipment.reason or f"The shipment is {shipment.state}"))


def _cancel(provider: ShippingProvider, command: CancelShipment, *, may_be_known: bool) -> Outcome:
    shipment = provider.shipment(command.booking_id) if may_be_known else None
    if shipment is None or shipment.state not in NOTHING_BOOKED:
        shipment = provider.cancel(command.booking_id)
    if shipment.state in NOTHING_BOOKED:
        return Done(Answer(SHIPMENT_CANCELLED))
    reason = shipment.reason or f"The carrier refuses the cancellation, and the shipment is {shipment.state}"
    return Failed(reason, for_people=reason)


SHIPPING_WORK = register(
    SHIPPING.kind(
        session=session,
        outcomes_total=Counter("shipping_attempts_total", "Attempts at a shipping command, by outcome.", ["outcome"]),
        call_timeout_s=settings.SHIPPING_PROVIDER_TIMEOUT,
        concurrency=settings.SHIPPING_CONCURRENCY,
    )
)
