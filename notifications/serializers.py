from typing import Any

from rest_framework import serializers

from events.wire.timestamps import TimestampField
from notifications.models import Notification
from orders.events import ORDER_EVENT_TYPES


class TrueOrFalseField(serializers.BooleanField):
    """A field that accepts `true` and `false`, and rejects the other spellings that forms may send."""

    def to_internal_value(self, data: Any) -> bool:
        if data not in ("true", "false"):
            self.fail("invalid")
        return bool(data == "true")


class NotificationFilterSerializer(serializers.Serializer[Any]):
    """The query of `GET /api/notifications`."""

    type = serializers.ChoiceField(ORDER_EVENT_TYPES, required=False, help_text="Notifications of this type.")
    unread = TrueOrFalseField(
        source="read_at__isnull", required=False, help_text="true: those not read yet; false: those that were read."
    )


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    userId = serializers.IntegerField(source="user_id")
    createdAt = TimestampField(source="created_at")
    readAt = TimestampField(source="read_at", allow_null=True)
    orderId = serializers.IntegerField(source="order_id")
    eventId = serializers.UUIDField(source="event_id")

    class Meta:
        model = Notification
        fields = ("id", "userId", "type", "message", "createdAt", "readAt", "orderId", "eventId")
        read_only_fields = fields
