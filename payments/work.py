"""The leased work (`events.work`) of payments: the calls of the provider that carry out each command."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.utils.module_loading import import_string
from prometheus_client import Counter

from events.work.calling import judged
from events.work.commands import Answer
from events.work.kinds import Act, register
from events.work.outcomes import Done, Failed, Outcome
from payments import messages
from payments.messages import PAYMENT_CHARGED, PAYMENT_DECLINED, PAYMENT_REFUNDED, ChargePayment, RefundPayment
from payments.models import PaymentCommand
from payments.providers import PaymentProvider
from payments.subscriptions import PAYMENTS

NOTHING_CHARGED = ("refunded", "voided")
"""The states of a payment that make a refund a success. `voided`: there was no charge, and there never will be one."""


@contextmanager
def session() -> Iterator[Act[PaymentCommand]]:
    """Yield the function that carries out one command.

    All commands that a caller carries out in one `with` block share the connections to the provider.
    """
    with import_string(settings.PAYMENT_PROVIDER)() as provider:
        yield judged(lambda work: _do(provider, work))


def _do(provider: PaymentProvider, work: PaymentCommand) -> Outcome:
    match messages.decode(bytes(work.value)):
        case ChargePayment() as command:
            return _charge(provider, command, may_be_known=work.may_be_known)
        case RefundPayment() as command:
            return _refund(provider, command, may_be_known=work.may_be_known)


def _charge(provider: PaymentProvider, command: ChargePayment, *, may_be_known: bool) -> Outcome:
    payment = provider.payment(command.command_id) if may_be_known else None
    if payment is None:
        payment = provider.charge(
            command.command_id,
            amount=command.amount,
            token=command.payment_token,
            reference=command.reference,
        )
    if payment.state == "charged":
        return Done(Answer(PAYMENT_CHARGED))
    return Done(Answer(PAYMENT_DECLINED, payment.reason or f"The payment is {payment.state}"))


def _refund(provider: PaymentProvider, command: RefundPayment, *, may_be_known: bool) -> Outcome:
    payment = provider.payment(command.charge_id) if may_be_known else None
    if payment is None or payment.state not in NOTHING_CHARGED:
        payment = provider.refund(command.charge_id)
    if payment.state in NOTHING_CHARGED:
        return Done(Answer(PAYMENT_REFUNDED))
    reason = payment.reason or f"The provider refuses the refund, and the payment is {payment.state}"
    return Failed(reason, for_people=reason)


PAYMENT_WORK = register(
    PAYMENTS.kind(
        session=session,
        outcomes_total=Counter("payment_attempts_total", "Attempts at a payment command, by outcome.", ["outcome"]),
        call_timeout_s=settings.PAYMENT_PROVIDER_TIMEOUT,
        concurrency=settings.PAYMENT_CONCURRENCY,
    )
)
