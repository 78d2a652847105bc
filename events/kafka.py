"""The client: kafka-python with its edges taken off. No other module imports `kafka`.

What it settles once for the rest: connecting never leaks, sending tells every message's own outcome, and offsets are
committed only when somebody says which.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord as Record
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    CommitFailedError,
    InvalidRecordError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RebalanceInProgressError,
    RecordListTooLargeError,
)
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from events.headers import unpack
from events.models import OutboxEvent

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_MS = 5_000
# Committing and leaving have to fit into the 10 s that a stopping consumer has.
GROUP_TIMEOUT_MS = 3_000
# The relay's turn ends by itself after 8 s (events.relay): a send has to be over before that.
METADATA_TIMEOUT_MS = 2_000
REQUEST_TIMEOUT_MS = 4_000
DELIVERY_TIMEOUT_MS = 5_000
# A dead letter's copy may carry a value of 1 MiB and Spring's headers beside it.
MAX_MESSAGE_BYTES = 2 * 1024 * 1024

Client = TypeVar("Client")


class KafkaUnreachable(Exception):
    """Kafka did not answer. It may come back: wait, then try again."""


def connect(client: Callable[..., Client], **config: Any) -> Client:
    """Build a client, or leave nothing behind.

    A constructor that raises leaves its network thread running, so the network client is closed here.

    Raises:
        KafkaUnreachable: no broker answered within `CONNECT_TIMEOUT_MS`.
    """
    opened: list[KafkaNetClient] = []

    def network_client(**network_config: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**network_config))
        return opened[-1]

    try:
        return client(
            kafka_client=network_client,
            bootstrap_servers=settings.KAFKA_BOOTSTRAP_SERVERS,
            api_version=settings.KAFKA_API_VERSION,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            # The default backs off to 30 s, which is how long a healed system would stay idle.
            reconnect_backoff_max_ms=1_000,
            security_protocol=settings.KAFKA_SECURITY_PROTOCOL,
            sasl_mechanism=settings.KAFKA_SASL_MECHANISM,
            sasl_plain_username=settings.KAFKA_SASL_USERNAME,
            sasl_plain_password=settings.KAFKA_SASL_PASSWORD,
            ssl_cafile=settings.KAFKA_SSL_CAFILE,
            **config,
        )
    except BaseException as error:
        for network in opened:
            network.close()
        if isinstance(error, KafkaTimeoutError):
            raise KafkaUnreachable(f"Kafka at {_servers()} does not answer: {error}") from error
        raise


@contextmanager
def admin_client() -> Iterator[KafkaAdminClient]:
    """Raises KafkaUnreachable."""
    admin = connect(KafkaAdminClient, request_timeout_ms=CONNECT_TIMEOUT_MS)
    try:
        yield admin
    finally:
        admin.close()


@contextmanager
def unreachable_on_error() -> Iterator[None]:
    """Whatever the client raises in this block becomes KafkaUnreachable."""
    try:
        yield
    except KafkaError as error:
        raise KafkaUnreachable(f"Kafka at {_servers()} does not answer: {error}") from error


def _servers() -> str:
    return ",".join(settings.KAFKA_BOOTSTRAP_SERVERS)


# --- Sending -----------------------------------------------------------------------------------


class Sent(NamedTuple):
    """Acknowledged by Kafka: where the message stands."""

    partition: int
    offset: int


class Unsendable(Exception):
    """A message that no Kafka would ever take, for a reason of its own."""


class ClosingProducer(KafkaProducer):
    """A producer that closes with messages in flight, too: the original gives up and leaves its thread running."""

    def flush(self, timeout: float | None = None) -> None:
        with suppress(KafkaTimeoutError):
            super().flush(timeout)


class Producer:
    """Sends messages and waits for Kafka's word on each. Not shared across a fork."""

    def __init__(self) -> None:
        """Raises KafkaUnreachable."""
        self._client = connect(
            ClosingProducer,
            # With idempotence, messages of a producer that never got its id would never expire. Without it, one
            # request in flight keeps the order, and a repeat is absorbed by the consumer.
            enable_idempotence=False,
            acks="all",
            max_in_flight_requests_per_connection=1,
            allow_auto_create_topics=False,
            max_block_ms=METADATA_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            max_request_size=MAX_MESSAGE_BYTES,
            batch_size=128 * 1024,
        )

    def send_all(self, messages: Sequence[OutboxEvent]) -> list[Sent | Exception]:
        """One outcome per message, in order: `Sent`, `Unsendable`, or the outage that kept it.

        Returns within about `METADATA_TIMEOUT_MS` per topic plus `DELIVERY_TIMEOUT_MS`, with nothing left in flight.
        """
        outages: dict[str, Exception] = {}
        futures = []
        for message in messages:
            try:
                # Each send to a topic without metadata would block anew.
                futures.append(outages.get(message.topic) or self._send(message))
            except Unsendable as error:
                futures.append(error)
            except KafkaError as error:
                outages[message.topic] = error
                futures.append(error)
        deadline = time.monotonic() + DELIVERY_TIMEOUT_MS / 1000 + 1
        return [future if isinstance(future, Exception) else _outcome(future, deadline) for future in futures]

    def _send(self, message: OutboxEvent) -> Any:
        try:
            return self._client.send(
                message.topic,
                # Binary fields come as memoryview.
                key=None if message.key is None else bytes(message.key),
                value=None if message.value is None else bytes(message.value),
                headers=unpack(message.headers),
                partition=self._partition(message),
            )
        except (ValueError, TypeError, MessageSizeTooLargeError) as error:
            raise Unsendable(str(error)) from error

    def _partition(self, message: OutboxEvent) -> int | None:
        """The wanted partition, or none (by key) where the topic has fewer."""
        if message.partition is None or message.partition not in self._client.partitions_for(message.topic):
            return None
        return message.partition

    def close(self) -> None:
        """Messages in flight are given up; their rows stay pending."""
        self._client.close(timeout=1)


def _outcome(future: Any, deadline: float) -> Sent | Exception:
    try:
        metadata = future.get(timeout=max(0.0, deadline - time.monotonic()))
    except (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError) as error:
        return Unsendable(f"{type(error).__name__}: {error}")
    except KafkaError as error:
        return error
    return Sent(metadata.partition, metadata.offset)


# --- Receiving ---------------------------------------------------------------------------------


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


class Consumer:
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
        self._client.subscribe([topic])
        self._uncommitted: dict[TopicPartition, int] = {}

    def poll(self, *, timeout: float) -> list[Record]:
        """Records of all assigned partitions, each partition's in offset order; none after `timeout` seconds.

        Raises ReadingFailed.
        """
        if self._uncommitted:
            self._commit()
        try:
            by_partition = self._client.poll(timeout_ms=int(timeout * 1000))
        except Exception as error:
            raise ReadingFailed(f"{type(error).__name__}: {error}") from error
        return [record for records in by_partition.values() for record in records]

    def commit(self, records: Iterable[Record]) -> None:
        """Tell the group that `records` are done with. Whoever owns their partitions now may read them again."""
        self._uncommitted |= {TopicPartition(r.topic, r.partition): r.offset + 1 for r in records}
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
        except KafkaTimeoutError as error:
            # Perhaps committed, perhaps not: once more at the next poll, or an idle group would show lag for ever.
            logger.info("Offsets are committed later: %s", error)
            return
        except (CommitFailedError, RebalanceInProgressError) as error:
            logger.info("Offsets not committed, the partitions' next owner reads again: %s", error)
        self._uncommitted.clear()

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
