"""Factories of test data."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import factory
from django.contrib.auth.models import User

from events.kafka import Record
from events.models import OutboxEvent
from events.wire.timestamps import now
from notifications.models import EmailDelivery, Notification
from orders.events import ORDER_CREATED, OrderEvent, encode
from orders.models import Order


class UserFactory(factory.django.DjangoModelFactory[User]):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"customer-{n}")
    password = factory.django.Password("correct horse battery")


class OrderFactory(factory.django.DjangoModelFactory[Order]):
    """Makes the row of an order, and its user if none is given, but no items and no events."""

    class Meta:
        model = Order

    user = factory.SubFactory(UserFactory)
    total_amount = Decimal("50000.00")
    last_sequence = 1


class NotificationFactory(factory.django.DjangoModelFactory[Notification]):
    class Meta:
        model = Notification

    user_id = 1
    order_id = factory.Sequence(lambda n: n + 1)
    event_id = factory.LazyFunction(uuid4)
    type = ORDER_CREATED
    message = "주문이 생성되었습니다."


class EmailDeliveryFactory(factory.django.DjangoModelFactory[EmailDelivery]):
    class Meta:
        model = EmailDelivery

    notification = factory.SubFactory(NotificationFactory)
    address = "mina@example.com"
    subject = "[Commerce] 주문이 생성되었습니다"
    text = "주문이 생성되었습니다.\n\nhttps://shop.example/api/orders/1"
    state = "pending"
    finished_at = factory.LazyAttribute(lambda row: None if row.state == "pending" else now())


class OutboxEventFactory(factory.django.DjangoModelFactory[OutboxEvent]):
    class Meta:
        model = OutboxEvent

    event_id = factory.LazyFunction(uuid4)
    event_type = ORDER_CREATED
    topic = "order-events"
    key = b"1"
    value = factory.LazyAttribute(lambda row: encode(OrderEventFactory.build(event_id=row.event_id)))
    headers = b"\x90"
    created_at = factory.LazyFunction(now)


class OrderEventFactory(factory.base.Factory[OrderEvent]):
    class Meta:
        model = OrderEvent

    event_id = factory.LazyFunction(uuid4)
    event_type = ORDER_CREATED
    timestamp = datetime(2025, 1, 30, 10, 15, 30, 123000, tzinfo=UTC)
    order_id = factory.Sequence(lambda n: n + 1)
    user_id = 45
    total_amount = Decimal("50000.00")


def poison_that_names(*, event_id: UUID, order_id: int, event_type: str) -> bytes:
    """Return a JSON body with only the event's id, type and order id, which names the event but cannot be decoded."""
    return json.dumps({"eventId": str(event_id), "eventType": event_type, "orderId": order_id}).encode()


def kafka_record(value: bytes | None, *, offset: int = 0, **changes: Any) -> Record:
    """Return a record as the product's Kafka client returns it. `changes` are other fields of the record."""
    fields: dict[str, Any] = dict.fromkeys(Record._fields)
    fields |= {"topic": "order-events", "partition": 0, "leader_epoch": 0, "offset": offset, "timestamp": 1738232130123}
    fields |= {"timestamp_type": 0, "key": b"1", "value": value, "headers": []}
    fields["serialized_value_size"] = len(value or b"")
    return Record(**fields | changes)
