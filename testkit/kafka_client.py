"""An independent Kafka client for tests, of another library than the product's."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

TIMEOUT_S = 10
"""Seconds."""


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
    """A message to be sent; without `partition` to the one of its key."""

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
    """Send one message as any other program would, and wait until it stands on the topic."""
    produce_all(topic, [Outgoing(value, key, headers or [], partition)])


def produce_all(topic: str, messages: Iterable[Outgoing]) -> None:
    """Send many messages in their order, and wait until all of them stand on the topic."""
    producer = Producer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "message.max.bytes": 2 * 1024 * 1024,
            # Tests count what they send, also while Kafka fails.
            "enable.idempotence": True,
            # It retries by itself; what it gives up on is asserted below.
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
    """Everything on the topic, each partition's messages in the order of their offsets."""
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
    """The largest message the topic takes."""
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return int(admin.describe_configs([resource])[resource].result()["max.message.bytes"].value)
