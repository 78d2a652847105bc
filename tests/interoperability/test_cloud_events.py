"""The CloudEvents SDK reads the product's records as events, and the product reads the SDK's events."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent
from django.contrib.auth.models import User

from conftest import Topics
from notifications.models import Notification
from notifications.services import read_notification
from testkit.factories import NotificationFactory
from testkit.kafka_client import Message, produce, read_topic
from tests.interoperability.conftest import Consume, relay

EVENT_ID = "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55"


def parsed(message: Message) -> BaseCloudEvent:
    assert None not in message.header.values()
    headers = {name: value or b"" for name, value in message.headers}
    return from_binary_event(KafkaMessage(headers=headers, key=message.key, value=message.value or b""))


def test_an_order_event_is_a_cloud_event(topics: Topics, placed: list[dict[str, Any]]) -> None:
    events = {event.get_id(): event for event in map(parsed, read_topic(topics.order_events))}
    assert set(events) == {expected["eventId"] for expected in placed}
    for expected in placed:
        event = events[expected["eventId"]]
        assert event.get_attributes() == {
            "specversion": "1.0",
            "id": expected["eventId"],
            "type": "ORDER_CREATED",
            "source": "/orders",
            "subject": str(expected["orderId"]),
            "time": datetime.fromisoformat(expected["timestamp"]),
            "sequence": "1",
            "datacontenttype": "application/json",
            "partitionkey": str(expected["orderId"]),
        }
        data: Any = event.get_data()
        assert data["orderId"] == expected["orderId"]


@pytest.mark.django_db(transaction=True)
def test_the_reading_of_a_notification_is_a_cloud_event(topics: Topics, user: User) -> None:
    notification = NotificationFactory.create(user_id=user.pk)
    reading = read_notification(notification_id=notification.pk, user_id=user.pk)
    relay()
    (message,) = read_topic(topics.notification_events)
    event = parsed(message)
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": str(reading.events[0].event_id),
        "type": "NOTIFICATION_READ",
        "source": "/notifications",
        "subject": str(notification.pk),
        "time": reading.notification.read_at,
        "datacontenttype": "application/json",
        "partitionkey": str(notification.pk),
    }
    data: Any = event.get_data()
    assert data["notificationId"] == notification.pk


def test_an_event_of_the_sdk_becomes_a_notification(topics: Topics, consume: Consume) -> None:
    attributes = {"id": EVENT_ID, "type": "ORDER_PAID", "source": "/tills", "time": datetime(2025, 1, 30, tzinfo=UTC)}
    body = {
        "eventId": EVENT_ID,
        "eventType": "ORDER_PAID",
        "timestamp": "2025-01-30T00:00:00+09:00",
        "orderId": 7,
        "userId": 45,
        "totalAmount": 1.5,
    }
    message = to_binary_event(CloudEvent(attributes, body))
    produce(topics.order_events, message.value, headers=list(message.headers.items()))
    consume()
    assert str(Notification.objects.get().event_id) == EVENT_ID
