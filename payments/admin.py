from django.conf import settings
from django.contrib import admin

from events.admin.commands import CommandAdmin, try_again_action
from payments.messages import PAYMENT_COMMANDS
from payments.models import PaymentCommand

TRY_AGAIN = try_again_action(PaymentCommand, within=lambda: settings.PAYMENT_GIVES_UP_AFTER)


@admin.register(PaymentCommand)
class PaymentCommandAdmin(CommandAdmin):
    secret_members = PAYMENT_COMMANDS.secret_members
    row_actions = (TRY_AGAIN,)
