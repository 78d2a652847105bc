"""The subscription of shipping, which records each command as leased work (`events.work`)."""

from django.conf import settings

from events.subscriptions import register
from events.work.commands import Participant
from shipping.messages import (
    BOOK_SHIPMENT,
    CANCEL_SHIPMENT,
    SHIPMENT_CANCELLATION_FAILED,
    SHIPMENT_FAILED,
    SHIPPING_COMMANDS,
    SHIPPING_REPLIES,
    decode,
)
from shipping.models import ShippingCommand

SHIPPING = Participant(
    name="shipping",
    model=ShippingCommand,
    commands=SHIPPING_COMMANDS,
    replies=SHIPPING_REPLIES,
    decode=decode,
    failed={BOOK_SHIPMENT: SHIPMENT_FAILED, CANCEL_SHIPMENT: SHIPMENT_CANCELLATION_FAILED},
    gives_up_after=lambda: settings.SHIPPING_GIVES_UP_AFTER,
)
register(SHIPPING.subscription())
