"""A Kafka client for tests. It uses confluent-kafka, a different library from the product's."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

TIMEOUT_S = 10


class Message(NamedTuple):
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @property
    def header(self) -> dict[str, bytes | None]:
        return dict(self.headers)


class Outgoing(NamedTuple):
    """A message to send. If `partition` is -1, the key selects the partition."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int = -1


def produce(
    topic: str,
    value: bytes | None,
    *,
    key: bytes | None = None,
    headers: list[tuple[str, bytes | None]] | None = None,
    partition: int = -1,
) -> None:
    """Send one message as another program would, and wait for its acknowledgement."""
    produce_all(topic, [Outgoing(value, key, headers or [], partition)])


def produce_all(topic: str, messages: Iterable[Outgoing]) -> None:
    """Send messages in order, and wait for all acknowledgements. Raises AssertionError if one is missing."""
    producer = Producer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "message.max.bytes": 2 * 1024 * 1024,
            # Tests count the messages they send, and some send while Kafka fails.
            "enable.idempotence": True,
            # The producer retries; the assertions below report its final errors.
            "log_level": 0,
        }
    )
    errors: set[object] = set()
    for message in messages:
        producer.produce(
            topic,
            message.value,
            message.key,
            message.partition,
            headers=list(message.headers),
            on_delivery=lambda error, _: errors.add(error),
        )
    assert producer.flush(TIMEOUT_S) == 0
    assert errors <= {None}


def read_topic(topic: str) -> list[Message]:
    """Return all messages on the topic, ordered by partition and offset."""
    consumer = Consumer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "group.id": "reader"})
    try:
        partitions = consumer.list_topics(topic, TIMEOUT_S).topics[topic].partitions
        wanted = {}
        for number in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), TIMEOUT_S)
            if high > low:
                wanted[number] = high
        consumer.assign([TopicPartition(topic, number, 0) for number in wanted])
        messages = []
        while wanted:
            for read in consumer.consume(500, 1):
                assert read.error() is None, read.error()
                messages.append(
                    Message(read.partition(), read.offset(), read.key(), read.value(), read.headers() or [])
                )
                if read.offset() + 1 >= wanted.get(read.partition(), 0):
                    wanted.pop(read.partition(), None)
        return sorted(messages)
    finally:
        consumer.close()


def max_message_bytes(topic: str) -> int:
    """Return the topic's limit of a message's size in bytes."""
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return int(admin.describe_configs([resource])[resource].result()["max.message.bytes"].value)
