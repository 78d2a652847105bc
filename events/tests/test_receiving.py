from collections.abc import Iterator
from uuid import uuid4

import pytest
from pytest_django import Settings

from conftest import Topics
from events.kafka import Consumer, Record, Unreadable
from events.lag import group_lag
from tests.kafka_client import Outgoing, produce, produce_all
from tests.waiting import wait_until

SHORT = 0.1
"""Seconds of a poll: the embedded broker's group takes longer to tell a member what it may read."""


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
def consumer(topics: Topics, group: str, settings: Settings) -> Iterator[Consumer]:
    settings.KAFKA_SESSION_TIMEOUT_MS = 2_000
    consumer = Consumer(topic=topics.order_events, group=group, batch_size=1)
    yield consumer
    consumer.close()


def read_and_commit(consumer: Consumer) -> None:
    consumer.commit(wait_until(lambda: consumer.poll(timeout=SHORT)))


def test_what_a_group_answers_between_two_polls_is_not_missed(topics: Topics, consumer: Consumer) -> None:
    produce(topics.order_events, b"1")
    read_and_commit(consumer)


def test_a_poll_ends_where_its_records_have_enough_bytes(
    topics: Topics, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.kafka.receiving.POLL_BYTES", 2_000_000)
    sent = [bytes([number]) * 900_000 for number in range(12)]
    produce_all(topics.order_events, [Outgoing(value, partition=number % 3) for number, value in enumerate(sent)])
    consumer = Consumer(topic=topics.order_events, group=group, batch_size=500)
    polls: list[list[bytes]] = []

    def has_read_all() -> bool:
        records = consumer.poll(timeout=SHORT)
        consumer.commit(records)
        polls.append([record.value for record in records])
        return sum(len(values) for values in polls) == len(sent)

    try:
        wait_until(has_read_all)
    finally:
        consumer.close()
    assert sorted(value for values in polls for value in values) == sent
    assert max(len(values) for values in polls) == 3


def test_a_batch_that_is_damaged_is_fetched_again_from_its_beginning(topics: Topics, consumer: Consumer) -> None:
    produce_all(topics.order_events, [Outgoing(b"%d" % number, partition=0) for number in range(3)])
    records: list[Record] = []

    def has_read_all() -> bool:
        records.extend(consumer.poll(timeout=SHORT))
        return len(records) == 3

    wait_until(has_read_all)
    damaged = Unreadable()
    damaged.first_offset = 0
    consumer.hold([records[2]._replace(value=damaged)])
    consumer.release()
    assert wait_until(lambda: consumer.poll(timeout=SHORT))[0].offset == 0


def test_no_batch_is_kept_while_partitions_are_held(topics: Topics, consumer: Consumer) -> None:
    sent = [Outgoing(b"%d" % number, partition=number % 3) for number in range(30)]
    produce_all(topics.order_events, sent)
    read: set[tuple[int, int]] = set()

    def has_read_all() -> bool:
        records = consumer.poll(timeout=SHORT)
        consumer.hold(records)
        consumer.poll(timeout=0)
        consumer.poll(timeout=0)
        assert not consumer._client._fetcher._paused_partition_records
        consumer.release()
        read.update((record.partition, record.offset) for record in consumer.poll(timeout=SHORT))
        return len(read) == len(sent)

    wait_until(has_read_all)


def test_a_member_whose_topic_has_changed_stays_a_member(topics: Topics, group: str, consumer: Consumer) -> None:
    produce(topics.order_events, b"1", partition=0)
    read_and_commit(consumer)
    consumer._client._coordinator._assignment_snapshot = {topics.order_events: {0}}
    produce(topics.order_events, b"2", partition=0)

    def has_committed_both() -> bool:
        consumer.commit(consumer.poll(timeout=SHORT))
        return group_lag(topic=topics.order_events, group=group)[0].current_offset == 2

    wait_until(has_committed_both)
