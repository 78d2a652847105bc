"""A member of a consumer group. It commits only the records that its caller names."""

import logging
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress

from django.conf import settings
from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    CorruptRecordError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    RebalanceInProgressError,
    RetriableError,
    SaslAuthenticationFailedError,
    UnknownMemberIdError,
    UnsupportedVersionError,
)
from prometheus_client import Counter

from events.kafka.connecting import KafkaUnreachable, connect
from events.kafka.patches.group import DelayedRangeAssignor, GroupMember
from events.kafka.records import Record, Unreadable
from events.process.watchdog import Watchdog

logger = logging.getLogger(__name__)

lost_total = Counter(
    "events_lost_to_retention_total",
    "Records that Kafka deleted before the group read them.",
    ["group", "topic", "partition"],
)

GROUP_TIMEOUT_MS = 3_000
"""Longest time of one call about a group's offsets or membership, such as a commit, in milliseconds.

It is short, because a stopping consumer must commit and leave its group within 10 s.
"""
FETCH_BYTES = 8 * 1024 * 1024
"""Largest number of bytes that one broker sends at once for all partitions. A single batch may be larger."""
PARTITION_FETCH_BYTES = 1024 * 1024

FATAL = (
    AuthorizationError,
    CorruptRecordError,
    IllegalStateError,
    KafkaConfigurationError,
    SaslAuthenticationFailedError,
    UnsupportedVersionError,
)
"""Errors of the Kafka client that joining the group again would not cure. They become ReadingFailed."""


class ReadingFailed(Exception):
    """The client cannot read, and joining the group again would not help."""


class Consumer(ConsumerRebalanceListener):
    """A member of a consumer group. It commits only the records that `commit` is given."""

    def __init__(self, *, topic: str, group: str, batch_size: int) -> None:
        """Connect to Kafka. `poll` joins `group`, and returns at most `batch_size` records. Raises KafkaUnreachable."""
        self._topic = topic
        self._group = group
        self._batch_size = batch_size
        self._client = self._join()
        self._watchdog = Watchdog(what="The Kafka client", limit=settings.CONSUMER_POLL_WATCHDOG)
        self._is_lost = False
        self._uncommitted: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._expected: dict[TopicPartition, int] = {}
        """Next offset to read from each partition, if Kafka deletes nothing."""

    def _join(self) -> GroupMember:
        client = connect(
            GroupMember,
            # Tools show this name to people who look at the members of the group.
            client_id=f"{socket.gethostname()}-{os.getpid()}",
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Skip the records of aborted transactions.
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=self._batch_size,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            fetch_max_wait_ms=settings.KAFKA_FETCH_MAX_WAIT_MS,
            session_timeout_ms=settings.KAFKA_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=min(3_000, settings.KAFKA_SESSION_TIMEOUT_MS // 3),
            max_poll_interval_ms=settings.KAFKA_MAX_POLL_INTERVAL_MS,
            partition_assignment_strategy=[DelayedRangeAssignor],
            metrics_enabled=False,
        )
        client.subscribe([self._topic], listener=self)
        return client

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Forget all offsets: another member may commit later ones before this one gets the partitions back."""
        self._forget_offsets()

    def _forget_offsets(self) -> None:
        self._uncommitted = {}
        self._committed = {}
        self._expected = {}

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Do nothing: the client starts to read at the committed offsets."""

    def poll(self, *, timeout: float, in_hand: bool = False) -> list[Record]:
        """Return records of the assigned partitions, in offset order for each; an empty list after `timeout` seconds.

        `in_hand` says whether the caller still works on records that it has neither committed nor given to `hold`. If
        the caller does not, a poll that finds no records commits, on each partition, the offset that is read next.

        After an error that a new client may avoid, return an empty list. The next poll joins with a new client.

        Raises:
            ReadingFailed: a new client would fail, too.
            KafkaError: an earlier commit was repeated and failed, and another attempt would not help.
        """
        if self._is_lost and not self._join_again(timeout):
            return []
        if self._uncommitted:
            self._commit()
        try:
            with self._watchdog.guard():
                by_partition = self._client.poll(timeout_ms=int(timeout * 1000))
                for partition, records in by_partition.items():
                    self._report_deleted_records(partition, found=_first_offset(records[0]))
                    self._expected[partition] = records[-1].offset + 1
            if not by_partition and not self._uncommitted and not in_hand:
                self._commit_positions()
        except Exception as error:
            if not isinstance(error, KafkaError) or isinstance(error, FATAL):
                raise ReadingFailed(f"{type(error).__name__}: {error}") from error
            logger.warning("Joining the group again after %s: %s", type(error).__name__, error)
            self.close()
            self._is_lost = True
            self._forget_offsets()
            return []
        return [record for records in by_partition.values() for record in records]

    def _join_again(self, timeout: float) -> bool:
        try:
            with self._watchdog.guard():
                self._client = self._join()
        except KafkaUnreachable:
            time.sleep(timeout)
            return False
        self._is_lost = False
        return True

    def commit(self, records: Iterable[Record]) -> None:
        """Commit the next offset after `records` on each partition.

        If the commit fails and a retry may help, the next poll repeats it. If a partition has a new owner, or the
        client failed in the last poll, the records are read again. Raises KafkaError after any other failure.
        """
        if self._is_lost:
            return
        # Replace the dict and never change it in place, because a rebalance replaces it in the client's thread.
        self._uncommitted = self._uncommitted | {TopicPartition(r.topic, r.partition): r.offset + 1 for r in records}
        self._commit()

    def _commit_positions(self) -> None:
        """Commit on each partition the offset that the client reads next.

        The end of a producer's transaction has an offset but is no record, so it would otherwise count as lag forever.
        Call this only when every record that was read is committed or held.
        """
        for partition in self._client.assignment():
            with suppress(IllegalStateError, KafkaTimeoutError):  # The partition is revoked, or has no position yet.
                position = self._client.position(partition, timeout_ms=0)
                if position is not None and position > self._committed.get(partition, 0):
                    self._report_deleted_records(partition, found=position)
                    self._expected[partition] = position
                    self._uncommitted = self._uncommitted | {partition: position}
        if self._uncommitted:
            self._commit()

    def _report_deleted_records(self, partition: TopicPartition, *, found: int) -> None:
        """Find out whether Kafka deleted records before the group read them, and report them.

        The client goes on at the offset `found`. Raises KafkaError if a request for offsets fails.
        """
        if partition not in self._expected:
            committed = self._client.committed(partition, timeout_ms=GROUP_TIMEOUT_MS)
            # A group without a committed offset starts with the first record that exists.
            self._expected[partition] = found if committed is None else committed
        expected = self._expected[partition]
        if found <= expected:
            return
        # A gap alone is no loss: the end of a transaction has an offset but is no record.
        beginning = self._client.beginning_offsets([partition], timeout_ms=GROUP_TIMEOUT_MS)[partition]
        last_lost = min(beginning, found) - 1
        if last_lost >= expected:
            report_lost(group=self._group, partition=partition, first=expected, last=last_lost)

    def _commit(self) -> None:
        owned = self._client.assignment()
        offsets = {
            partition: OffsetAndMetadata(offset, "", -1)
            for partition, offset in self._uncommitted.items()
            if partition in owned
        }
        try:
            with self._watchdog.guard():
                self._client.commit(offsets, timeout_ms=GROUP_TIMEOUT_MS)
        except RetriableError as error:
            # The offsets may be committed or not. The next poll repeats it, or an idle group would show lag forever.
            logger.info("Committing offsets failed, the next poll repeats it: %s", error)
            return
        except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError) as error:
            logger.info("Offsets not committed, the next owner of the partitions reads the records again: %s", error)
        else:
            self._committed = self._committed | {partition: kept.offset for partition, kept in offsets.items()}
        self._uncommitted = {}

    def hold(self, records: Iterable[Record]) -> None:
        """Go back to the first of `records` on each partition, and pause all assigned partitions until `release`.

        Partitions that a rebalance assigns meanwhile are not paused.
        """
        if self._is_lost:
            return
        owned = self._client.assignment()
        first: dict[TopicPartition, int] = {}
        for record in records:
            partition, offset = TopicPartition(record.topic, record.partition), _first_offset(record)
            first[partition] = min(offset, first.get(partition, offset))
        for partition, offset in first.items():
            if partition in owned:
                self._client.seek(partition, offset)
                self._expected[partition] = offset
        self._client.pause(*owned)

    def release(self) -> None:
        if not self._is_lost:
            self._client.resume(*self._client.paused())

    def close(self) -> None:
        if not self._is_lost:
            with self._watchdog.guard():
                self._client.close(autocommit=False, timeout_ms=GROUP_TIMEOUT_MS)


def _first_offset(record: Record) -> int:
    """Return the offset from which to read `record` again. An unreadable record may represent several offsets."""
    return record.value.first_offset if isinstance(record.value, Unreadable) else record.offset


def report_lost(*, group: str, partition: TopicPartition, first: int, last: int) -> None:
    """Log and count the offsets from `first` up to and including `last`, which the group can never read."""
    lost_total.labels(group, partition.topic, str(partition.partition)).inc(last - first + 1)
    logger.warning(
        "Kafka deleted %s[%d] from offset %d to %d before group %s read it, by its retention or on request. "
        "`manage.py reconcile_events --repair` sends this project's events again",
        partition.topic,
        partition.partition,
        first,
        last,
        group,
    )
