"""One member of a consumer group; offsets are committed only when somebody says which."""

import logging
import time
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    RetriableError,
    UnknownMemberIdError,
)
from kafka.structs import OffsetAndMetadata

from events.kafka.connecting import connect
from events.kafka.records import Record
from events.watchdog import Watchdog

logger = logging.getLogger(__name__)

# Committing and leaving have to fit into the 10 s that a stopping consumer has.
GROUP_TIMEOUT_MS = 3_000


class DelayedRangeAssignor(RangePartitionAssignor):
    """Range assignment that gives followers `KAFKA_ASSIGNMENT_DELAY_MS` to arrive.

    The embedded broker declares a group complete when the leader has answered, and then refuses the members that
    answer later.
    """

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> Any:
        time.sleep(settings.KAFKA_ASSIGNMENT_DELAY_MS / 1000)
        return super().assign(cluster, members)


class ReadingFailed(Exception):
    """The client raised while reading, and would spin for ever if it were asked again: only a new process reads on."""


class Consumer(ConsumerRebalanceListener):
    """One member of a consumer group. Nothing is committed but what `commit` is given."""

    def __init__(self, *, topic: str, group: str, batch_size: int) -> None:
        """Raises KafkaUnreachable."""
        self._client = connect(
            KafkaConsumer,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            max_poll_records=batch_size,
            fetch_max_wait_ms=settings.KAFKA_FETCH_MAX_WAIT_MS,
            session_timeout_ms=settings.KAFKA_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=min(3_000, settings.KAFKA_SESSION_TIMEOUT_MS // 3),
            max_poll_interval_ms=settings.KAFKA_MAX_POLL_INTERVAL_MS,
            partition_assignment_strategy=[DelayedRangeAssignor],
        )
        self._client.subscribe([topic], listener=self)
        self._uncommitted: dict[TopicPartition, int] = {}
        self._watchdog = Watchdog(what="The Kafka client's poll()", limit=settings.CONSUMER_POLL_WATCHDOG)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Whoever owns them next may be further by the time we get them back."""
        self._uncommitted = {}

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing to do: reading starts at the committed offsets."""

    def poll(self, *, timeout: float) -> list[Record]:
        """Records of all assigned partitions, each partition's in offset order; none after `timeout` seconds.

        Raises ReadingFailed.
        """
        if self._uncommitted:
            self._commit()
        try:
            with self._watchdog.guard():
                by_partition = self._client.poll(timeout_ms=int(timeout * 1000))
        except Exception as error:
            raise ReadingFailed(f"{type(error).__name__}: {error}") from error
        return [record for records in by_partition.values() for record in records]

    def commit(self, records: Iterable[Record]) -> None:
        """Tell the group that `records` are done with. Whoever owns their partitions now may read them again."""
        # Never changed in place: a rebalance replaces it from the client's own thread.
        self._uncommitted = self._uncommitted | {TopicPartition(r.topic, r.partition): r.offset + 1 for r in records}
        self._commit()

    def _commit(self) -> None:
        owned = self._client.assignment()
        offsets = {
            partition: OffsetAndMetadata(offset, "", -1)
            for partition, offset in self._uncommitted.items()
            if partition in owned
        }
        try:
            self._client.commit(offsets, timeout_ms=GROUP_TIMEOUT_MS)
        except RetriableError as error:
            # Perhaps committed, perhaps not: once more at the next poll, or an idle group would show lag for ever.
            logger.info("Offsets are committed later: %s", error)
            return
        except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError) as error:
            logger.info("Offsets not committed, the partitions' next owner reads again: %s", error)
        self._uncommitted = {}

    def hold(self, records: Iterable[Record]) -> None:
        """Go back to before `records`, and read nothing until `release`, without leaving the group."""
        owned = self._client.assignment()
        first: dict[TopicPartition, int] = {}
        for record in records:
            first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for partition, offset in first.items():
            if partition in owned:
                self._client.seek(partition, offset)
        self._client.pause(*owned)

    def release(self) -> None:
        self._client.resume(*self._client.paused())

    def close(self) -> None:
        self._client.close(autocommit=False, timeout_ms=GROUP_TIMEOUT_MS)
