"""Without the dead-letter topic, the copies of dead letters wait in the outbox and consuming goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

from testkit.apache_kafka import ApacheKafka
from testkit.database import oldest_pending_seconds, parked, pending
from testkit.foreign_events import (
    DEAD_LETTERS,
    TOPIC,
    all_notified_once,
    foreign_events,
    last_dead_letter_id,
    open_dead_letters,
    send,
)
from testkit.kafka_client import produce, read_topic
from testkit.servers import PARTITIONS
from testkit.waiting import wait_until
from tests.faults.conftest import Site
from tests.faults.oracle import Oracle

OUTAGE_S = 6
"""Seconds that the dead letter's copy waits in the outbox before the dead-letter topic exists again.

The consumer's background publisher stops trying in less time. So the relay also tries to send while the topic is
missing.
"""


@contextmanager
def without_dead_letter_topic(kafka: ApacheKafka) -> Iterator[None]:
    kafka.delete_topic(DEAD_LETTERS)
    try:
        yield
    finally:
        kafka.create_topic(DEAD_LETTERS, partitions=PARTITIONS)


def test_dead_letters_without_their_topic_wait_in_the_outbox(site: Site, kafka: ApacheKafka, oracle: Oracle) -> None:
    last, parked_before = last_dead_letter_id(), parked()
    with without_dead_letter_topic(kafka):
        produce(TOPIC, b"poison without a topic")
        wait_until(lambda: open_dead_letters(after=last))
        events = foreign_events(100)
        send(events)
        oracle.place_orders(site.web.url, 40)
        wait_until(lambda: all_notified_once(events) and pending() == 1)
        wait_until(lambda: oldest_pending_seconds() > OUTAGE_S)
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.dead_letters) == (40, 0)
    assert {message.value for message in read_topic(DEAD_LETTERS)} == {b"poison without a topic"}
    assert parked() == parked_before
