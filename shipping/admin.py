from django.conf import settings
from django.contrib import admin

from events.admin.commands import CommandAdmin, try_again_action
from shipping.models import ShippingCommand

TRY_AGAIN = try_again_action(ShippingCommand, within=lambda: settings.SHIPPING_GIVES_UP_AFTER)


@admin.register(ShippingCommand)
class ShippingCommandAdmin(CommandAdmin):
    row_actions = (TRY_AGAIN,)
