from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy

from events.admin.read_only import ReadOnlyAdmin, badge
from events.wire.identifiers import id_or_none, uuid_or_none
from notifications.models import Notification

TYPE_COLOURS = {"ORDER_CREATED": "info", "ORDER_PAID": "success", "ORDER_CANCELLED": "danger"}


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    list_display = ("id", "user_id", "order_id", "type_label", "message", "created_at", "read_at")
    list_filter = ("type", ("read_at", admin.EmptyFieldListFilter))
    search_fields = ("=user_id", "=order_id", "event_id")
    search_help_text = gettext_lazy("A user's, an order's or an event's id")
    ordering = ("-id",)
    readonly_fields = ("type_label",)
    fields = (("type_label", "user_id", "order_id"), "message", ("created_at", "read_at"), "event_id")

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        if (number := id_or_none(term)) is None:
            return rows.none()
        return rows.filter(Q(user_id=number) | Q(order_id=number))

    @admin.display(description=gettext_lazy("type"))
    def type_label(self, notification: Notification) -> str:
        return badge(notification.type, TYPE_COLOURS[notification.type])
