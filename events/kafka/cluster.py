"""The cluster, looked at from outside: topics, and how far a group has come. And topics made."""

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
    """Offsets of one partition, as Kafka keeps them."""

    beginning: int
    committed: int | None
    """The group's next offset; None before its first commit."""
    end: int


class Viewer:
    """Looks at a topic and at a group's offsets without joining the group. Every method raises KafkaUnreachable."""

    def __init__(self, *, group: str) -> None:
        self._client = connect(
            KafkaConsumer,
            group_id=group,
            enable_auto_commit=False,
            # As the group reads: an end that nobody may read yet is not lag.
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=1,
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
            fetch_max_bytes=4 * MAX_MESSAGE_BYTES,
        )

    def offsets(self, topic: str) -> dict[int, Offsets]:
        """By partition; empty where there is no such topic."""
        partitions = [TopicPartition(topic, number) for number in range(count_partitions(topic))]
        with unreachable_on_error():
            # Committed before end: what is written meanwhile may count as lag, never as read.
            committed = {p: self._client.committed(p, timeout_ms=CONNECT_TIMEOUT_MS) for p in partitions}
            beginning = self._client.beginning_offsets(partitions, timeout_ms=CONNECT_TIMEOUT_MS)
            end = self._client.end_offsets(partitions, timeout_ms=CONNECT_TIMEOUT_MS)
        return {p.partition: Offsets(beginning[p], committed[p], end[p]) for p in partitions}

    def timestamps(self, topic: str, positions: Mapping[int, int], *, timeout: float) -> dict[int, int]:
        """Timestamp in milliseconds of the record at each position; partitions that did not answer are left out."""
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
            # Of a partition that is paused, the client would keep the batch, up to 32 MiB of it.
            if waiting := [TopicPartition(topic, number) for number in positions if number not in found]:
                self._client.assign(waiting)
        return found

    def close(self) -> None:
        self._client.close(autocommit=False, timeout_ms=GROUP_TIMEOUT_MS)


class Member(NamedTuple):
    """A consumer of a group."""

    client_id: str
    host: str
    partitions: list[int]


def group_members(*, group: str, topic: str) -> list[Member] | None:
    """Who reads `topic` in the group; None where the broker cannot tell. Raises KafkaUnreachable without a broker."""
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
    """The partitions; of an assignment that our client could not decode, none."""
    topics = assignment["assigned_partitions"] if isinstance(assignment, dict) else []
    return sorted(number for one in topics if one["topic"] == topic for number in one["partitions"])


def count_partitions(topic: str) -> int:
    """How many partitions the topic has; 0 where there is no such topic. Raises KafkaUnreachable."""
    # Asked of the admin client, because the consumer's metadata calls have no timeout.
    with admin_client() as admin, unreachable_on_error():
        (described,) = admin.describe_topics([topic])
        return len(described["partitions"])


def create_topic(name: str, *, partitions: int, replication: int, max_message_bytes: int | None = None) -> bool:
    """Create it where it is missing; whether that was so.

    Raises:
        KafkaUnreachable: as for every client.
        KafkaError: the broker refused.
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
            # Somebody may have been faster.
            if count_partitions(name):
                return False
            raise
    return True
