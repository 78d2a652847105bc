from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from pytest_django import Settings

from conftest import Topics
from events.kafka import Consumer, Record, Unreadable
from events.kafka.lag import group_lag
from events.kafka.patches.group import DelayedRangeAssignor
from testkit.apache_kafka import ApacheKafka
from testkit.kafka_client import Outgoing, produce, produce_all
from testkit.servers import PARTITIONS, Broker
from testkit.subscriptions import read_and_commit as read_and_commit_first
from testkit.waiting import wait_until

POLL_TIMEOUT_S = 0.1
"""Timeout of one poll, in seconds.

The embedded broker takes longer to assign partitions, so a test polls repeatedly until it gets records.
"""


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
    consumer.commit(wait_until(lambda: consumer.poll(timeout=POLL_TIMEOUT_S)))


def test_what_a_group_answers_between_two_polls_is_not_missed(topics: Topics, consumer: Consumer) -> None:
    produce(topics.order_events, b"1")
    read_and_commit(consumer)


def test_a_poll_ends_where_its_records_have_enough_bytes(
    topics: Topics, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.kafka.patches.group.POLL_BYTES", 2_000_000)
    sent = [bytes([number]) * 900_000 for number in range(12)]
    produce_all(topics.order_events, [Outgoing(value, partition=number % 3) for number, value in enumerate(sent)])
    consumer = Consumer(topic=topics.order_events, group=group, batch_size=500)
    polls: list[list[bytes]] = []

    def has_read_all() -> bool:
        records = consumer.poll(timeout=POLL_TIMEOUT_S)
        consumer.commit(records)
        polls.append([record.value for record in records])
        return sum(len(values) for values in polls) == len(sent)

    try:
        wait_until(has_read_all)
    finally:
        consumer.close()
    assert sorted(value for values in polls for value in values) == sent
    assert max(len(values) for values in polls) == 3


def test_a_damaged_batch_is_fetched_again_from_its_beginning(topics: Topics, consumer: Consumer) -> None:
    produce_all(topics.order_events, [Outgoing(b"%d" % number, partition=0) for number in range(3)])
    records: list[Record] = []

    def has_read_all() -> bool:
        records.extend(consumer.poll(timeout=POLL_TIMEOUT_S))
        return len(records) == 3

    wait_until(has_read_all)
    damaged = Unreadable()
    damaged.first_offset = 0
    consumer.hold([records[2]._replace(value=damaged)])
    consumer.release()
    assert wait_until(lambda: consumer.poll(timeout=POLL_TIMEOUT_S))[0].offset == 0


def test_no_batch_is_kept_while_partitions_are_held(topics: Topics, consumer: Consumer) -> None:
    sent = [Outgoing(b"%d" % number, partition=number % 3) for number in range(30)]
    produce_all(topics.order_events, sent)
    read: set[tuple[int, int]] = set()

    def has_read_all() -> bool:
        records = consumer.poll(timeout=POLL_TIMEOUT_S)
        consumer.hold(records)
        consumer.poll(timeout=0)
        consumer.poll(timeout=0)
        assert not consumer._client._fetcher._paused_partition_records
        consumer.release()
        read.update((record.partition, record.offset) for record in consumer.poll(timeout=POLL_TIMEOUT_S))
        return len(read) == len(sent)

    wait_until(has_read_all)


def test_a_member_whose_topic_has_changed_stays_a_member(topics: Topics, group: str, consumer: Consumer) -> None:
    produce(topics.order_events, b"1", partition=0)
    read_and_commit(consumer)
    consumer._client._coordinator._assignment_snapshot = {topics.order_events: {0}}
    produce(topics.order_events, b"2", partition=0)

    def has_committed_both() -> bool:
        consumer.commit(consumer.poll(timeout=POLL_TIMEOUT_S))
        return group_lag(topic=topics.order_events, group=group)[0].current_offset == 2

    wait_until(has_committed_both)


class TestNewPartitions:
    """On Apache Kafka only: the embedded broker cannot add partitions to a topic."""

    @pytest.fixture
    def kafka(self, broker: Broker) -> ApacheKafka:
        if not isinstance(broker, ApacheKafka):
            pytest.skip("the embedded broker cannot add partitions")
        return broker

    @pytest.fixture(autouse=True)
    def _young_metadata(self, settings: Settings) -> None:
        settings.KAFKA_METADATA_MAX_AGE_MS = 500

    def test_a_running_consumer_reads_them(
        self, topics: Topics, group: str, kafka: ApacheKafka, consumer: Consumer
    ) -> None:
        produce(topics.order_events, b"old", partition=0)
        assert read([consumer], count=1) == {b"old"}
        kafka.add_partitions(topics.order_events, total=PARTITIONS + 2)
        fill(topics.order_events, total=PARTITIONS + 2)
        assert read([consumer], count=PARTITIONS + 2) == {b"%d" % number for number in range(PARTITIONS + 2)}
        wait_until(lambda: has_no_lag(topics, group, consumer))

    def test_a_consumer_that_joins_meanwhile_reads_them(
        self, topics: Topics, group: str, kafka: ApacheKafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The topic grows after the group's leader has read the list of partitions, and before it assigns them."""
        assign = DelayedRangeAssignor.assign
        grown: list[None] = []

        def grow_and_assign(cls: type[DelayedRangeAssignor], cluster: Any, members: Any) -> Any:
            if not grown:
                grown.append(None)
                kafka.add_partitions(topics.order_events, total=PARTITIONS + 1)
            return assign(cluster, members)

        monkeypatch.setattr(DelayedRangeAssignor, "assign", classmethod(grow_and_assign))
        joining = Consumer(topic=topics.order_events, group=group, batch_size=10)
        try:
            wait_until(lambda: joining.poll(timeout=POLL_TIMEOUT_S) or grown)
            fill(topics.order_events, total=PARTITIONS + 1)
            assert read([joining], count=PARTITIONS + 1) == {b"%d" % number for number in range(PARTITIONS + 1)}
            wait_until(lambda: has_no_lag(topics, group, joining))
        finally:
            joining.close()

    def test_two_members_share_them(self, topics: Topics, group: str, kafka: ApacheKafka, consumer: Consumer) -> None:
        other = Consumer(topic=topics.order_events, group=group, batch_size=10)
        try:
            fill(topics.order_events, total=PARTITIONS)
            read([consumer, other], count=PARTITIONS)
            kafka.add_partitions(topics.order_events, total=PARTITIONS * 2)
            fill(topics.order_events, total=PARTITIONS * 2)
            assert len(read([consumer, other], count=PARTITIONS * 2)) == PARTITIONS * 2
            wait_until(lambda: has_no_lag(topics, group, consumer, other))
            assert all(member._client.assignment() for member in (consumer, other))
        finally:
            other.close()


def fill(topic: str, *, total: int) -> None:
    """Write one record to each of the topic's `total` partitions. Its value is the number of the partition."""
    for number in range(total):
        produce(topic, b"%d" % number, partition=number)


def read(members: Sequence[Consumer], *, count: int) -> set[bytes | None]:
    """Read and commit until the members have read `count` different values, and return these."""
    values: set[bytes | None] = set()

    def has_read_all() -> bool:
        for member in members:
            records = member.poll(timeout=POLL_TIMEOUT_S)
            member.commit(records)
            values.update(record.value for record in records)
        return len(values) >= count

    wait_until(has_read_all)
    return values


def has_no_lag(topics: Topics, group: str, *members: Consumer) -> bool:
    for member in members:
        member.commit(member.poll(timeout=POLL_TIMEOUT_S))
    return all(partition.lag == 0 for partition in group_lag(topic=topics.order_events, group=group))


@pytest.mark.parametrize("read", [0, 2], ids=["nothing committed", "two committed"])
@pytest.mark.parametrize("left", [0, 1, 3])
def test_deleted_records_are_reported_once(
    topics: Topics, group: str, broker: Broker, caplog: pytest.LogCaptureFixture, read: int, left: int
) -> None:
    if not isinstance(broker, ApacheKafka):
        pytest.skip("the embedded broker deletes no records")
    produce_all(topics.order_events, [Outgoing(b"%d" % number, partition=0) for number in range(7)])
    if read:
        read_and_commit_first(topics.order_events, group, read)
    broker.delete_records(topics.order_events, partition=0, before=7 - left)
    consumer = Consumer(topic=topics.order_events, group=group, batch_size=500)
    labels = {"group": group, "topic": topics.order_events, "partition": "0"}
    found: list[bytes] = []

    def has_read_all() -> bool:
        records = consumer.poll(timeout=POLL_TIMEOUT_S)
        consumer.commit(records)
        found.extend(record.value for record in records)
        # Not the lag: if no record is left, it is 0 before the consumer has joined.
        return group_lag(topic=topics.order_events, group=group)[0].current_offset == 7 and len(found) == left

    try:
        wait_until(has_read_all)
        wait_until(lambda: not consumer.poll(timeout=POLL_TIMEOUT_S))
    finally:
        consumer.close()
    lost = 7 - left - read if read else 0
    assert (REGISTRY.get_sample_value("events_lost_to_retention_total", labels) or 0) == lost
    warnings = [one.getMessage() for one in caplog.records if "before group" in one.getMessage()]
    if lost:
        (warning,) = warnings
        assert f"{topics.order_events}[0] from offset {read} to {6 - left}" in warning
    else:
        assert warnings == []


def test_lag_counts_only_records_that_are_left(topics: Topics, group: str, broker: Broker) -> None:
    if not isinstance(broker, ApacheKafka):
        pytest.skip("the embedded broker deletes no records")
    produce_all(topics.order_events, [Outgoing(b"%d" % number, partition=0) for number in range(7)])
    read_and_commit_first(topics.order_events, group, 1)
    broker.delete_records(topics.order_events, partition=0, before=5)
    assert group_lag(topic=topics.order_events, group=group)[0].lag == 2
