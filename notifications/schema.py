"""Descriptions of the notification operations for the OpenAPI document. Serializers and filters describe the fields."""

from functools import partial
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view

from notifications.serializers import NotificationSerializer

EXAMPLE = {
    "id": 678,
    "userId": 45,
    "type": "ORDER_CREATED",
    "message": "주문이 생성되었습니다. 주문번호: 123, 금액: 200.00원",
    "createdAt": "2025-01-30T10:15:30.456Z",
    "readAt": None,
    "orderId": 123,
    "eventId": "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
}

_operation = partial(extend_schema, tags=["Notifications"])


def _answer(serializer: Any, example: Any) -> OpenApiResponse:
    return OpenApiResponse(serializer, examples=[OpenApiExample("Example", example)])


describe_notifications = extend_schema_view(
    list=_operation(
        operation_id="listNotifications",
        summary="The caller's own notifications, newest first",
        responses={200: _answer(NotificationSerializer(many=True), EXAMPLE)},
    ),
    read=_operation(
        operation_id="readNotification",
        summary="Mark a notification as read",
        description="Repeating it changes nothing. Body and content type are ignored.",
        responses={200: _answer(NotificationSerializer, EXAMPLE | {"readAt": "2025-01-30T10:20:00.000Z"})},
    ),
)
