from typing import ClassVar

from django.utils.translation import gettext_lazy

from events.work.commands import CommandWork
from events.work.models import LeasedWorkQuerySet


class ShippingCommand(CommandWork):
    """A booking or a cancellation of a shipment, as one command to shipping."""

    objects: ClassVar[LeasedWorkQuerySet["ShippingCommand"]] = LeasedWorkQuerySet.as_manager()  # type: ignore[assignment]

    class Meta(CommandWork.Meta):
        verbose_name = gettext_lazy("shipping command")
        verbose_name_plural = gettext_lazy("shipping commands")
        permissions = [("try_again_shippingcommand", "Can try failed shipping commands again")]
