"""Patches of kafka-python's consumer group: how a member joins, divides partitions, waits, and hands over records."""

import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from kafka import IsolationLevel, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord as Record
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import CorruptRecordError

__all__ = ["DelayedRangeAssignor", "GroupMember", "Record"]

MIN_POLL_WAIT_S = 0.1
"""Shortest time, in seconds, that the client waits for records before its coordinator acts again.

It prevents a busy loop. A `poll` with a shorter timeout ends at that timeout.
"""
UNKNOWN = -1
"""Placeholder for the serialized size of a record's key or headers. No code reads it."""
POLL_BYTES = 8 * 1024 * 1024
"""A poll that has this many bytes takes no further record. A full batch of 500 order events has only 300 kB."""


class DelayedRangeAssignor(RangePartitionAssignor):
    """Range assignment that gives the other members of the group `KAFKA_ASSIGNMENT_DELAY_MS` to join.

    Reason: the embedded broker declares a group complete when the group's leader has answered, and then refuses the
    members that answer later.
    Upstream: no issue of librdkafka's mock cluster is known.
    Guard: tests/faults/consuming/test_groups.py and events/kafka/tests/test_receiving.py, on the embedded broker.
    It can go, with its setting, when the mock cluster waits for all members.
    """

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> Any:
        time.sleep(settings.KAFKA_ASSIGNMENT_DELAY_MS / 1000)
        return super().assign(cluster, members)


class AttentiveCoordinator(ConsumerCoordinator):
    """Keep the broker's answer to a member that joins the group, and do not poll in a busy loop.

    Reason: the original takes the answer only during a poll. If the answer comes between two polls, the original asks
    again. If new partitions trigger a rebalance, the original ignores it. The member then keeps reading outside its
    group, or stops reading. While Kafka does not answer a heartbeat, the original says that a poll is due at once, so
    that the consumer polls in a busy loop.
    Upstream: https://github.com/dpkp/kafka-python/pull/2955 introduced the methods for joining that this class
    overrides; no issue about lost answers is known. https://github.com/dpkp/kafka-python/issues/1383 was the same busy
    loop in an older release.
    Guard: events/kafka/tests/test_receiving.py, where `TestNewPartitions` needs Apache Kafka. For the busy loop:
    tests/faults/outbox/test_kafka_away.py on Apache Kafka.
    It can go when these tests pass with `ConsumerCoordinator`.
    """

    _answer: bytes | None = None

    def need_rejoin(self) -> bool:
        return bool(self.rejoining or super().need_rejoin())

    def time_to_next_poll(self) -> float:
        """Return the seconds until the next poll, at least `MIN_POLL_WAIT_S`.

        A heartbeat that is due needs no earlier poll, because another thread sends it.
        """
        return max(super().time_to_next_poll(), MIN_POLL_WAIT_S)

    async def _do_join_and_sync_async(self) -> bytes:
        if self._answer is None:
            self._answer = await super()._do_join_and_sync_async()
        return self._answer

    async def _on_join_complete_async(self, *answered: Any) -> None:
        self._answer = None
        await super()._on_join_complete_async(*answered)


class ByteLimitedFetcher(Fetcher):
    """Hand over records until a poll has `POLL_BYTES`.

    One batch at a time is decompressed, when its first record is wanted. An unreadable batch counts with the largest
    size of a batch, so that the poll ends after it.

    Reason: the original limits the number of records, but not their size. It also keeps a decompressed batch of each
    paused partition. This class drops that batch and fetches it again. The original also measures the headers of
    every record, which would decode them (events/kafka/patches/headers.py).
    Upstream: batches of paused partitions are kept since https://github.com/dpkp/kafka-python/pull/2981; no issue about
    a bound in bytes is known.
    Guard: events/kafka/tests/test_receiving.py, test_headers.py and tests/kafka/test_bombs.py.
    It can go when `poll` takes a bound in bytes that holds for decompressed and paused batches, and leaves headers
    alone.
    """

    _room = POLL_BYTES

    class PartitionRecords(Fetcher.PartitionRecords):
        full_at: int
        """Once `bytes_read` reaches this number, `take` takes no further record."""

        def _unpack_records(self, tp: TopicPartition, records: Any, *_deserializers: Any) -> Iterator[Record]:
            """Yield the records in the batches of `records`, with headers that are not decoded yet."""
            last = None
            while (batch := records.next_batch()) is not None:
                last = batch
                if self.check_crcs and not batch.validate_crc():
                    raise CorruptRecordError(f"{tp} at offset {batch.base_offset} has a wrong checksum and length")
                if batch.magic == 2:
                    self.leader_epoch = batch.leader_epoch
                    if self._is_passed_over(batch):
                        self.next_fetch_offset = batch.next_offset
                        continue
                for record in batch:
                    self.bytes_read += record.size_in_bytes
                    self.next_fetch_offset = record.offset + 1
                    yield Record(
                        *tp,
                        self.leader_epoch,
                        record.offset,
                        record.timestamp,
                        record.timestamp_type,
                        record.key,
                        record.value,
                        record.headers,
                        record.checksum,
                        UNKNOWN,
                        # The size of the whole record, as `bytes_read` counts it.
                        record.size_in_bytes,
                        UNKNOWN,
                    )
            if last is not None and last.magic == 2:
                # The last records of a batch may have been compacted.
                self.next_fetch_offset = last.next_offset
            self.drain()

        def _is_passed_over(self, batch: Any) -> bool:
            """Return whether `batch` must not reach the application: it was aborted, or is a control batch of Kafka."""
            if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
                self._consume_aborted_transactions_up_to(batch.last_offset)
                if self._contains_abort_marker(batch):
                    self.aborted_producer_ids.discard(batch.producer_id)
                elif self._is_batch_aborted(batch):
                    return True
            return bool(batch.is_control_batch)

        def take(self, n: int) -> list[Record]:
            self._maybe_raise_next_inline_exception()
            records: list[Record] = []
            try:
                for record in self.record_iterator:
                    records.append(record)
                    if len(records) == n or self.bytes_read >= self.full_at:
                        break
            except Exception as error:
                if not records:
                    raise
                self._next_inline_exception = error
            return records

    def fetched_records(self, *args: Any, **options: Any) -> Any:
        self._room = POLL_BYTES
        self._paused_partition_records.clear()
        return super().fetched_records(*args, **options)

    def _append(self, drained: Any, part: Any, max_records: int, update_offsets: Any) -> int:
        """Take records from `part`, and return their number.

        Once the poll has `POLL_BYTES`, return `max_records` instead, so that the caller takes no more records.
        """
        before = part.bytes_read
        part.full_at = before + self._room
        taken: int = super()._append(drained, part, max_records, update_offsets)
        self._room -= part.bytes_read - before
        return taken if self._room > 0 else max_records


class GroupMember(KafkaConsumer):
    """A consumer with the patched coordinator and the patched fetcher.

    Reason: `KafkaConsumer` creates its coordinator and its fetcher itself, and accepts no other classes.
    Upstream: no issue is known.
    Guard: the tests of `AttentiveCoordinator` and of `ByteLimitedFetcher`.
    It can go when these two classes can go.
    """

    def __init__(self, *topics: str, **configuration: Any) -> None:
        super().__init__(*topics, **configuration)
        self._coordinator.__class__ = AttentiveCoordinator
        self._fetcher.__class__ = ByteLimitedFetcher
