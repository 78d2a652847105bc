"""confluent-kafka, and with it every client on librdkafka: what it may do to the records it writes."""

import os

from confluent_kafka import Producer

from conftest import Topics
from events.models import DeadLetter
from notifications.models import Notification
from orders.events import OrderEvent, encode
from tests.factories import OrderEventFactory
from tests.interoperability.conftest import Consume

TIMEOUT = 10
"""Seconds."""


def told() -> set[object]:
    return set(Notification.objects.values_list("event_id", flat=True))


def ids(events: list[OrderEvent]) -> set[object]:
    return {event.event_id for event in events}


def producer(**config: object) -> Producer:
    return Producer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], **config})


def test_events_may_be_compressed_in_any_way(topics: Topics, consume: Consume) -> None:
    events = OrderEventFactory.build_batch(40)
    for number, codec in enumerate(["gzip", "snappy", "lz4", "zstd"]):
        compressing = producer(**{"compression.type": codec, "linger.ms": 100})
        for event in events[number * 10 : number * 10 + 10]:
            compressing.produce(topics.order_events, encode(event), partition=0)
        assert compressing.flush(TIMEOUT) == 0
    consume()
    assert told() == ids(events)
    assert not DeadLetter.objects.exists()
