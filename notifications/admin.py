import re
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from events.admin.read_only import ReadOnlyAdmin, badge
from events.wire.identifiers import id_or_none, uuid_or_none
from notifications.models import Notification
from orders.money import won_text

TYPE_COLOURS = {"ORDER_CREATED": "info", "ORDER_PAID": "success", "ORDER_CANCELLED": "danger"}
AMOUNT = re.compile(r"(?<=금액: )(-?\d+\.\d\d)원$")
"""The amount at the end of a message, as `notifications.subscriptions.TEXTS` writes it."""


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    list_display = ("id", "user_id", "order_id", "type_label", "text", "created_at", "read_at")
    list_filter = ("type", ("read_at", admin.EmptyFieldListFilter))
    search_fields = ("=user_id", "=order_id", "event_id")
    search_help_text = gettext_lazy("A user's, an order's or an event's id")
    ordering = ("-id",)
    readonly_fields = ("type_label", "text")
    fields = (("type_label", "user_id", "order_id"), "text", ("created_at", "read_at"), "event_id")

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        if (number := id_or_none(term)) is None:
            return rows.none()
        return rows.filter(Q(user_id=number) | Q(order_id=number))

    @admin.display(description=gettext_lazy("type"))
    def type_label(self, notification: Notification) -> str:
        return badge(notification.type, TYPE_COLOURS[notification.type])

    @admin.display(description=gettext_lazy("message"))
    def text(self, notification: Notification) -> SafeString:
        """Return the message with its amount as people write it. The title is the message that the API returns."""
        message = notification.message
        text = AMOUNT.sub(lambda amount: won_text(Decimal(amount[1])), message)
        return format_html('<span title="{}">{}</span>', message, text)
