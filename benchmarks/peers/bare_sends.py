"""An upper bound on the speed of the relay.

This program sends the bytes of the outbox's rows from memory, and prints the number of messages per second.
"""

import time

import django
from kafka import KafkaProducer

django.setup()

from django.conf import settings  # noqa: E402

from events.models import OutboxEvent  # noqa: E402
from events.wire.headers import unpack  # noqa: E402


def main() -> None:
    rows = OutboxEvent.objects.values_list("topic", "key", "value", "headers")
    messages = [(topic, bytes(key or b""), bytes(value or b""), unpack(headers)) for topic, key, value, headers in rows]
    producer = KafkaProducer(
        bootstrap_servers=settings.KAFKA_BOOTSTRAP_SERVERS, api_version=settings.KAFKA_API_VERSION, acks="all"
    )
    started_at = time.perf_counter()
    for topic, key, value, headers in messages:
        producer.send(topic, key=key, value=value, headers=headers)
    producer.flush()
    print(len(messages) / (time.perf_counter() - started_at))


if __name__ == "__main__":
    main()
