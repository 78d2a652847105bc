"""The Kafka client: kafka-python behind a small interface. Of the apps, only this package imports `kafka`."""

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from events.kafka.connecting import (
    CONNECT_TIMEOUT_MS,
    KafkaRefuses,
    KafkaUnreachable,
    admin_client,
    connect,
    unreachable_on_error,
)
from events.kafka.patches import batches
from events.kafka.patches.headers import has_header
from events.kafka.receiving import GROUP_TIMEOUT_MS, Consumer, ReadingFailed
from events.kafka.records import Record, Unreadable
from events.kafka.sending import MAX_MESSAGE_BYTES, Producer, Sent, Unsendable

__all__ = [
    "CONNECT_TIMEOUT_MS",
    "GROUP_TIMEOUT_MS",
    "MAX_MESSAGE_BYTES",
    "Consumer",
    "KafkaConsumer",
    "KafkaError",
    "KafkaRefuses",
    "KafkaUnreachable",
    "Producer",
    "ReadingFailed",
    "Record",
    "Sent",
    "TopicPartition",
    "Unreadable",
    "Unsendable",
    "admin_client",
    "connect",
    "has_header",
    "unreachable_on_error",
]

batches.install()
