"""Offsets of a consumer group, moved by the product's own client."""

from events.kafka import Consumer
from testkit.waiting import wait_until


def read_and_commit(topic: str, group: str, count: int) -> None:
    """Join the group and commit its first `count` records."""
    consumer = Consumer(topic=topic, group=group, batch_size=count)
    try:
        records = wait_until(lambda: consumer.poll(timeout=1))
        consumer.commit(records)
    finally:
        consumer.close()
