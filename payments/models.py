from typing import ClassVar

from django.utils.translation import gettext_lazy

from events.work.commands import CommandWork
from events.work.models import LeasedWorkQuerySet


class PaymentCommand(CommandWork):
    """A charge or a refund, as one command to payments."""

    objects: ClassVar[LeasedWorkQuerySet["PaymentCommand"]] = LeasedWorkQuerySet.as_manager()  # type: ignore[assignment]

    class Meta(CommandWork.Meta):
        verbose_name = gettext_lazy("payment command")
        verbose_name_plural = gettext_lazy("payment commands")
        permissions = [("try_again_paymentcommand", "Can try failed payment commands again")]
