"""Read topics, offsets and group members from the cluster, and create topics."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from events.kafka import (
    CONNECT_TIMEOUT_MS,
    GROUP_TIMEOUT_MS,
    MAX_MESSAGE_BYTES,
    KafkaConsumer,
    KafkaError,
    TopicPartition,
    admin_client,
    connect,
    unreachable_on_error,
)


class Offsets(NamedTuple):
    """Offsets of one partition, as Kafka reports them."""

    beginning: int
    committed: int | None
    """Offset that the group has committed: the next one that it reads. None before the first commit."""
    end: int


class Viewer:
    """Reads a topic and a group's offsets without joining the group. All methods but `close` raise KafkaUnreachable."""

    def __init__(self, *, group: str) -> None:
        self._client = connect(
            KafkaConsumer,
            group_id=group,
            enable_auto_commit=False,
            # As the consumers read: records of an open transaction do not count as lag.
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=1,
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
            fetch_max_bytes=4 * MAX_MESSAGE_BYTES,
        )

    def offsets(self, topic: str) -> dict[int, Offsets]:
        """Return the offsets of each partition, by partition number; an empty dict if the topic does not exist."""
        partitions = [TopicPartition(topic, number) for number in range(count_partitions(topic))]
        with unreachable_on_error():
            # Read committed offsets before end offsets: a record written in between may count as lag, never as read.
            committed = {p: self._client.committed(p, timeout_ms=CONNECT_TIMEOUT_MS) for p in partitions}
            beginning = self._client.beginning_offsets(partitions, timeout_ms=CONNECT_TIMEOUT_MS)
            end = self._client.end_offsets(partitions, timeout_ms=CONNECT_TIMEOUT_MS)
        return {p.partition: Offsets(beginning[p], committed[p], end[p]) for p in partitions}

    def timestamps(self, topic: str, positions: Mapping[int, int], *, timeout: float) -> dict[int, int]:
        """Return the timestamp of the first record at or after each position, in milliseconds since 1970, by partition.

        `positions` has an offset for each partition. Partitions whose record does not arrive within `timeout` seconds
        are left out.
        """
        self._client.assign([TopicPartition(topic, number) for number in positions])
        for number, offset in positions.items():
            self._client.seek(TopicPartition(topic, number), offset)
        found: dict[int, int] = {}
        deadline = time.monotonic() + timeout
        while len(found) < len(positions) and time.monotonic() < deadline:
            with unreachable_on_error():
                by_partition = self._client.poll(timeout_ms=200)
            for partition, records in by_partition.items():
                found.setdefault(partition.partition, records[0].timestamp)
            # Unassign the other partitions. If they were paused, the client would keep a batch of each, up to 32 MiB.
            if waiting := [TopicPartition(topic, number) for number in positions if number not in found]:
                self._client.assign(waiting)
        return found

    def close(self) -> None:
        self._client.close(autocommit=False, timeout_ms=GROUP_TIMEOUT_MS)


class Member(NamedTuple):
    """A member of a consumer group."""

    client_id: str
    host: str
    partitions: list[int]


def group_members(*, group: str, topic: str) -> list[Member] | None:
    """Return the members of `group` with their partitions of `topic`; None if the broker does not describe the group.

    Raises KafkaUnreachable if the client cannot connect. If the connection fails later, the result is None.
    """
    with admin_client() as admin:
        try:
            described = admin.describe_groups([group])[group]
        except KafkaError:
            return None
    if described["error"]:
        return None
    return [
        Member(member["client_id"], member["client_host"].lstrip("/"), _assigned(member["member_assignment"], topic))
        for member in described["members"]
    ]


def _assigned(assignment: Any, topic: str) -> list[int]:
    """Return the assigned partitions of `topic`; an empty list if the client could not decode the assignment."""
    topics = assignment["assigned_partitions"] if isinstance(assignment, dict) else []
    return sorted(number for one in topics if one["topic"] == topic for number in one["partitions"])


def count_partitions(topic: str) -> int:
    """Return the number of partitions of `topic`; 0 if it does not exist. Raises KafkaUnreachable."""
    # With the admin client, because the consumer's metadata calls have no timeout.
    with admin_client() as admin, unreachable_on_error():
        (described,) = admin.describe_topics([topic])
        return len(described["partitions"])


def create_topic(name: str, *, partitions: int, replication: int, max_message_bytes: int | None = None) -> bool:
    """Create the topic if it does not exist. Return whether it was created.

    Raises:
        KafkaUnreachable: no broker answered.
        KafkaError: the broker refused the request.
    """
    if count_partitions(name):
        return False
    topic: dict[str, Any] = {"num_partitions": partitions, "replication_factor": replication}
    if max_message_bytes:
        topic["configs"] = {"max.message.bytes": str(max_message_bytes)}
    with admin_client() as admin:
        try:
            admin.create_topics({name: topic}, wait_for_metadata=True)
        except KafkaError:
            # Another process may have created the topic since the check.
            if count_partitions(name):
                return False
            raise
    return True
