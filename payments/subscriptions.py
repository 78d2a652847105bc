"""The subscription of payments, which records each command as leased work (`events.work`)."""

from django.conf import settings

from events.subscriptions import register
from events.work.commands import Participant
from payments.messages import (
    CHARGE_PAYMENT,
    PAYMENT_COMMANDS,
    PAYMENT_FAILED,
    PAYMENT_REPLIES,
    REFUND_FAILED,
    REFUND_PAYMENT,
    decode,
)
from payments.models import PaymentCommand

PAYMENTS = Participant(
    name="payments",
    model=PaymentCommand,
    commands=PAYMENT_COMMANDS,
    replies=PAYMENT_REPLIES,
    decode=decode,
    failed={CHARGE_PAYMENT: PAYMENT_FAILED, REFUND_PAYMENT: REFUND_FAILED},
    gives_up_after=lambda: settings.PAYMENT_GIVES_UP_AFTER,
)
register(PAYMENTS.subscription())
