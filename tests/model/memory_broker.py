"""A Kafka in memory with the interface of the product's client, and with Kafka's failures.

It has one thread, no clock and no network, so the same steps always have the same outcome.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from enum import Enum
from itertools import cycle
from typing import Any
from zlib import crc32

from events.kafka import KafkaError, Record, Sent
from events.wire.headers import Header, unpack
from events.wire.messages import Message
from testkit.factories import kafka_record
from tests.model.interference import Hook


class SendOutcome(Enum):
    """What becomes of a sent message: whether the topic gets it, and whether the sender gets an acknowledgement."""

    ACKNOWLEDGED = "appended, and acknowledged"
    UNACKNOWLEDGED = "appended, and the acknowledgement is lost"
    REFUSED = "lost"


HEALTHY = (SendOutcome.ACKNOWLEDGED,)


class MemoryBroker:
    """Holds each topic as a list of records, in the order in which they were appended."""

    def __init__(self, *, partitions: int) -> None:
        self.partitions = range(partitions)
        self.topics: dict[str, list[Record]] = defaultdict(list)
        self.amid_send = Hook()
        self._outcomes: Sequence[SendOutcome] = HEALTHY

    def partition(self, topic: str, partition: int) -> list[Record]:
        """Return the records of one partition, sorted by offset."""
        return [record for record in self.topics[topic] if record.partition == partition]

    def append(
        self, topic: str, *, key: bytes, value: bytes | None, headers: list[Header], partition: int | None = None
    ) -> Record:
        if partition is None:
            partition = crc32(key) % len(self.partitions)
        offset = len(self.partition(topic, partition))
        record = kafka_record(value, topic=topic, partition=partition, offset=offset, key=key, headers=headers)
        self.topics[topic].append(record)
        return record

    @contextmanager
    def answering(self, outcomes: Sequence[SendOutcome]) -> Iterator[None]:
        """Within the block, let each call of `send_all` give its messages these outcomes in turn.

        Every call begins with the first outcome, and begins again after the last one.
        """
        self._outcomes = outcomes
        try:
            yield
        finally:
            self._outcomes = HEALTHY

    def outcomes(self) -> Iterator[SendOutcome]:
        return cycle(self._outcomes)


class MemoryProducer:
    """A stand-in for `events.kafka.Producer`. It calls `witness` with the messages before it sends them."""

    def __init__(self, broker: MemoryBroker, *, witness: Callable[[Sequence[Message]], None]) -> None:
        self._broker = broker
        self._witness = witness

    def send_all(self, messages: Sequence[Message]) -> list[Sent | Exception]:
        self._witness(messages)
        results: list[Sent | Exception] = []
        for message, outcome in zip(messages, self._broker.outcomes(), strict=False):
            results.append(self._send(message, outcome))
            self._broker.amid_send.fire()
        return results

    def _send(self, message: Message, outcome: SendOutcome) -> Sent | Exception:
        if outcome is SendOutcome.REFUSED:
            return KafkaError(outcome.value)
        record = self._broker.append(
            message.topic,
            key=message.key or b"",
            value=message.value,
            headers=unpack(message.headers),
            partition=message.partition,
        )
        if outcome is SendOutcome.UNACKNOWLEDGED:
            return KafkaError(outcome.value)
        return Sent(record.partition, record.offset)

    def close(self) -> None:
        """Do nothing: no message is in flight."""


class MemoryGroup:
    """A consumer group: the owner (number of a member) and the committed offset of each partition.

    At the beginning, each partition belongs to a different member.
    """

    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self.broker = broker
        self.topic = topic
        self.generation = 0
        self.owners: Sequence[int] = list(broker.partitions)
        self.committed = [0 for _ in broker.partitions]

    def rebalance(self, owners: Sequence[int] | None = None) -> None:
        """Start a new generation of the group. `owners` has the number of a member for each partition.

        Without `owners`, each partition keeps its current owner.
        """
        self.owners = owners or self.owners
        self.generation += 1

    def forget(self, partition: int, *, records: int) -> None:
        """Move the committed offset back by `records` records, so that these are delivered again after a rebalance."""
        self.committed[partition] = max(0, self.committed[partition] - records)
        self.rebalance()

    def consumed(self) -> list[Record]:
        return [record for record in self.broker.topics[self.topic] if record.offset < self.committed[record.partition]]

    def lag(self) -> int:
        return len(self.broker.topics[self.topic]) - sum(self.committed)


class NoThread(Executor):
    """A stand-in for the thread that polls the next batch. It makes each call at once, in the caller's thread."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*args, **kwargs))
        return done


class MemoryConsumer:
    """A stand-in for `events.kafka.Consumer`: member `number` of a group.

    `allow` sets how many batches it may read, and how many records a batch may have. `is_idle` says whether the last
    poll waited for records and returned none.
    """

    def __init__(self, group: MemoryGroup, number: int) -> None:
        self.amid_poll = Hook()
        self.amid_commit = Hook()
        self.is_idle = False
        self._group = group
        self._number = number
        self._generation = -1
        self._positions: dict[int, int] = {}
        self._read_from: dict[int, int] = {}
        self._held: set[int] = set()
        self._batches = self._size = 0

    def allow(self, *, batches: int, size: int) -> None:
        self._batches, self._size = batches, size
        self.is_idle = False

    def poll(self, *, timeout: float, in_hand: bool = False) -> list[Record]:
        if self._generation != self._group.generation:
            self._rejoin()
        records = self._fetch() if self._batches > 0 else []
        self.is_idle = timeout > 0 and not records
        if records:
            self._batches -= 1
            self.amid_poll.fire()
        return records

    def _rejoin(self) -> None:
        """Join the group again after a rebalance. Reading continues at the committed offsets of its partitions."""
        self._generation = self._group.generation
        self._held = set()
        self._read_from = {}
        self._positions = {
            partition: self._group.committed[partition]
            for partition, owner in enumerate(self._group.owners)
            if owner == self._number
        }

    def _fetch(self) -> list[Record]:
        records: list[Record] = []
        for partition in [partition for partition in self._positions if partition not in self._held]:
            unread = self._group.broker.partition(self._group.topic, partition)[self._positions[partition] :]
            records += unread[: self._size - len(records)]
        for record in records:
            self._read_from[record.partition] = min(record.offset, self._read_from.get(record.partition, record.offset))
            self._move(record, to=record.offset + 1)
        return records

    def _move(self, record: Record, *, to: int) -> None:
        # Reinsert the partition at the end of the dictionary, so that partitions take turns in the batches.
        self._positions.pop(record.partition)
        self._positions[record.partition] = to

    def commit(self, records: Iterable[Record]) -> None:
        """Commit the offset after the last of `records` on each partition.

        A partition is left out if this member has not read that record since the last rebalance.
        """
        self.amid_commit.fire()
        if self._generation == self._group.generation:
            for last in {record.partition: record for record in records}.values():
                end = self._positions.get(last.partition, 0)
                if last.offset in range(self._read_from.get(last.partition, end), end):
                    self._group.committed[last.partition] = last.offset + 1

    def hold(self, records: Sequence[Record]) -> None:
        for record in sorted(records, key=lambda record: record.offset, reverse=True):
            if record.partition in self._positions:
                self._move(record, to=record.offset)
        self._held = set(self._positions)

    def release(self) -> None:
        self._held = set()

    def close(self) -> None:
        """Start a rebalance, as if this member left. Its partitions wait for a new member with the same `number`."""
        self._group.rebalance()
