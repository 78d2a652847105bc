from django.contrib import admin

from events.admin import ReadOnlyAdmin
from notifications.models import Notification


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    list_display = ("id", "user_id", "type", "message", "created_at", "read_at")
    list_filter = ("type", ("read_at", admin.EmptyFieldListFilter))
    search_fields = ("=user_id", "=order_id", "event_id")
    search_help_text = "A user's, an order's or an event's id"
    ordering = ("-id",)
