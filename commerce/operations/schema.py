"""Descriptions of the events of an order for the OpenAPI document."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers

from orders.events import ORDER_EVENT_TYPES

STATES = ["PENDING", "PUBLISHED", "DEAD", "NOTIFIED"]
EXAMPLE = {
    "eventId": "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
    "eventType": "ORDER_CREATED",
    "sequence": 1,
    "timestamp": "2025-01-30T10:15:30.123Z",
    "state": "NOTIFIED",
    "publishedAt": "2025-01-30T10:15:30.140Z",
    "topic": "order-events",
    "partition": 2,
    "offset": 17,
    "notificationId": 678,
}


class OrderEventStateSerializer(serializers.Serializer[Any]):
    """The current state of an order's event. A field is null while its value is not known."""

    eventId = serializers.UUIDField()
    eventType = serializers.ChoiceField(ORDER_EVENT_TYPES, allow_null=True)
    sequence = serializers.IntegerField(min_value=1, help_text="1, 2, 3 ... within the order.")
    timestamp = serializers.DateTimeField(allow_null=True)
    state = serializers.ChoiceField(
        STATES,
        help_text="PENDING: committed, not yet on Kafka. PUBLISHED: on Kafka. DEAD: an open dead letter. "
        "NOTIFIED: its notification exists, even if a dead letter is open.",
    )
    publishedAt = serializers.DateTimeField(allow_null=True)
    topic = serializers.CharField()
    partition = serializers.IntegerField(allow_null=True)
    offset = serializers.IntegerField(allow_null=True)
    notificationId = serializers.IntegerField(allow_null=True)


describe_order_events = extend_schema_view(
    get=extend_schema(
        operation_id="listOrderEvents",
        tags=["Orders"],
        summary="Where each event of an order is now, oldest first",
        responses={
            200: OpenApiResponse(OrderEventStateSerializer(many=True), examples=[OpenApiExample("Example", EXAMPLE)])
        },
    )
)
