from rest_framework import serializers

from events.timestamps import TimestampField
from notifications.models import Notification


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    userId = serializers.IntegerField(source="user_id")
    createdAt = TimestampField(source="created_at")
    readAt = TimestampField(source="read_at")
    orderId = serializers.IntegerField(source="order_id")
    eventId = serializers.UUIDField(source="event_id")

    class Meta:
        model = Notification
        fields = ("id", "userId", "type", "message", "createdAt", "readAt", "orderId", "eventId")
