"""Send an event to Kafka and wait for its acknowledgement, as most projects do."""

from functools import cache

from django.conf import settings
from kafka import KafkaProducer

TOPIC = "notification-events"
"""A topic without a consumer during the benchmark."""
EVENT = (
    b'{"eventId":"5f0c7a3e-6f0e-4e4c-9b0a-0123456789ab","eventType":"ORDER_CREATED",'
    b'"timestamp":"2025-01-30T10:15:30.123Z","orderId":123,"userId":45,"totalAmount":200.00}'
)


@cache
def _producer() -> KafkaProducer:
    return KafkaProducer(
        bootstrap_servers=settings.KAFKA_BOOTSTRAP_SERVERS, api_version=settings.KAFKA_API_VERSION, acks="all"
    )


def send_and_wait(order_id: int) -> None:
    _producer().send(TOPIC, key=str(order_id).encode(), value=EVENT).get(timeout=10)
