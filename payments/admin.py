from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest

from events.admin.commands import CommandAdmin, try_again_action
from payments.models import PaymentCommand

TRY_AGAIN = try_again_action(PaymentCommand, within=lambda: settings.PAYMENT_GIVES_UP_AFTER)


@admin.register(PaymentCommand)
class PaymentCommandAdmin(CommandAdmin):
    secret_members = ("paymentToken",)
    row_actions = {"try-again": TRY_AGAIN}

    def has_try_again_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("payments.try_again_paymentcommand")
