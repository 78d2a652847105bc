"""The product reads all records that confluent-kafka writes. Other clients built on librdkafka write the same."""

import os

import pytest
from confluent_kafka import Producer

from conftest import Topics
from events.kafka.lag import group_lag
from events.models import DeadLetter
from notifications.models import Notification
from orders.events import OrderEvent, encode
from testkit.factories import OrderEventFactory
from testkit.servers import Broker
from tests.interoperability.conftest import Consume

TIMEOUT_S = 10


def notified_events() -> set[object]:
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
        assert compressing.flush(TIMEOUT_S) == 0
    consume()
    assert notified_events() == ids(events)
    assert not DeadLetter.objects.exists()


def test_only_events_of_committed_transactions_are_notified(topics: Topics, consume: Consume, broker: Broker) -> None:
    if not broker.creates_topics:
        pytest.skip("The embedded broker writes no transaction markers: run `make test-kafka`")
    committed, aborted = OrderEventFactory.build_batch(2), OrderEventFactory.build_batch(2)
    transactional = producer(**{"transactional.id": topics.order_events})
    transactional.init_transactions(TIMEOUT_S)
    for events, end in ((committed, transactional.commit_transaction), (aborted, transactional.abort_transaction)):
        transactional.begin_transaction()
        for event in events:
            transactional.produce(topics.order_events, encode(event), partition=0)
        assert transactional.flush(TIMEOUT_S) == 0
        end(TIMEOUT_S)
    consume()
    assert notified_events() == ids(committed)
    (lag,) = [row for row in group_lag(topic=topics.order_events, group=topics.order_events) if row.partition == 0]
    # The markers at the ends of both transactions have offsets as well.
    assert (lag.current_offset, lag.end_offset, lag.lag) == (6, 6, 0)
