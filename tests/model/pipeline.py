"""The product's parts from the outbox to the notifications, connected by a Kafka in memory."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.conf import settings
from django.core.management.color import no_style
from django.db import DataError, OperationalError, connection

from events.consuming.consumer import EventConsumer
from events.kafka import Record
from events.kafka.reading_ahead import ReadAhead
from events.models import ConsumerGroup, DeadLetter, DeathMark, OutboxEvent
from events.outbox.publisher import BackgroundPublisher
from events.outbox.relay import Relay
from events.subscriptions import Subscription
from events.wire.messages import Message
from notifications.models import Notification
from notifications.subscriptions import NotificationSubscription
from orders.events import OrderEvent, encode
from orders.models import Order, OrderItem
from testkit.factories import OrderEventFactory
from testkit.subscriptions import notifying
from tests.model.interference import Crash, Hook, OtherProcess
from tests.model.memory_broker import MemoryBroker, MemoryConsumer, MemoryGroup, MemoryProducer, NoThread

TOPIC = "order-events"
GROUP = "notification-consumer-group"
PARTITIONS = 2
TABLES = (OrderItem, Order, OutboxEvent, DeadLetter, ConsumerGroup, DeathMark, Notification)

UNKNOWN, DEADLY, REFUSED, ODD = -1, -2, -3, -4
"""Order ids in events of other systems. The consumer handles the first, and fails at each of the others differently."""
POISON = (None, b"garbage")
UNHANDLED = "unhandled"
"""Name of the header that the test gives to messages that must become dead letters."""


SubscriptionT = TypeVar("SubscriptionT", bound=Subscription[Any])


def empty_tables(*models: Any) -> None:
    """Empty `TABLES` and those of `models`, and restart their ids, so that the same steps have the same outcome."""
    tables = [model._meta.db_table for model in (*TABLES, *models)]
    connection.ops.execute_sql_flush(
        connection.ops.sql_flush(no_style(), tables, reset_sequences=True, allow_cascade=True)
    )


def fail_as_disconnected() -> None:
    raise OperationalError("The connection is gone")


def is_unhandled(record: Record) -> bool:
    return UNHANDLED in dict(record.headers)


def event_id(record: Record) -> UUID:
    return UUID(dict(record.headers)["ce_id"].decode())


@dataclass(frozen=True, kw_only=True)
class Notifying(NotificationSubscription):
    """The notifications' subscription with planned failures.

    Order `DEADLY` kills the consumer, order `REFUSED` is refused by the database, and order `ODD` causes an unforeseen
    error.
    """

    amid_save: Hook = field(default_factory=Hook)

    def save(self, events: Sequence[OrderEvent]) -> Collection[OrderEvent]:
        new = super().save(events)
        self.amid_save.fire()
        orders = {event.order_id for event in events}
        if DEADLY in orders:
            raise Crash
        if REFUSED in orders:
            raise DataError("out of range")
        if ODD in orders:
            raise ValueError("An unforeseen error")
        return new


class Member(Generic[SubscriptionT]):
    """A stand-in for a consumer process: the product's consumer on a Kafka in memory."""

    def __init__(self, group: MemoryGroup, number: int, subscription: SubscriptionT) -> None:
        self.subscription = subscription
        self.source = MemoryConsumer(group, number)
        self._consumer = EventConsumer(
            source=ReadAhead(self.source, NoThread()),
            subscription=self.subscription,
            stopping=lambda: self.source.is_idle,
        )

    def consume(self, *, size: int, batches: int) -> None:
        self.source.allow(size=size, batches=batches)
        self._consumer.run()


class Sending:
    """Runs the fast path and the relay. Each sends only when the test calls it, and is replaced after a crash."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(partitions=PARTITIONS)
        self._witness = OtherProcess()
        self._start_fast_path()
        self._start_relay()

    def close(self) -> None:
        self._witness.end()

    def take_fast_path(self, rows: Sequence[int], *, restarted: bool = True) -> None:
        """Deliver pending outbox rows by the fast path.

        `rows` has their indices from the newest row (0) backwards, modulo the number of pending rows. Without
        `restarted`, the fast path keeps its state, for example that Kafka was away.
        """
        if restarted:
            self._start_fast_path()
        newest_first = list(OutboxEvent.objects.pending().order_by("-pk"))
        try:
            self._fast_path._deliver([newest_first[row % len(newest_first)].message for row in rows if newest_first])
        except Crash:
            self._start_fast_path()

    def _start_fast_path(self) -> None:
        self._fast_path = BackgroundPublisher(connect=self._connect)

    def sweep(self) -> None:
        try:
            self._relay.sweep(older_than=settings.OUTBOX_RELAY_GRACE)
        except Crash:
            self._start_relay()

    def _start_relay(self) -> None:
        self._relay = Relay(stopping=lambda: False, wait=self._never_wait, connect=self._connect)

    def _connect(self) -> MemoryProducer:
        return MemoryProducer(self.broker, witness=self._require_recorded_predecessors)

    def _never_wait(self, seconds: float) -> None:
        raise AssertionError("A relay or worker waits, although no other one has what it needs")

    def _require_recorded_predecessors(self, messages: Sequence[Message]) -> None:
        # Another connection does not see what the sender has not committed.
        with self._witness.at_work():
            for message in messages:
                before = OutboxEvent.objects.filter(stream=message.stream, sequence=(message.sequence or 0) - 1)
                assert not before.filter(published_at=None).exists(), (
                    f"{message.stream}: {message.sequence} is sent too early"
                )


class Pipeline(Sending):
    """The product's publisher, relay and two consumers of notifications, on a Kafka in memory.

    The publisher is the fast path: it sends events without waiting for the relay. Each part works only when the
    test calls it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.group = MemoryGroup(self.broker, TOPIC)
        self.members = [self._member(number) for number in (0, 1)]

    def _member(self, number: int) -> Member[Notifying]:
        return Member(self.group, number, notifying(Notifying, group=GROUP))

    def consume(self, member: int, *, size: int, batches: int = 1) -> None:
        """Let the consumer `member` (0 or 1) handle up to `batches` batches of up to `size` records."""
        try:
            self.members[member].consume(size=size, batches=batches)
        except Crash:
            self.members[member].source.close()
            self.members[member] = self._member(member)

    def append_foreign(self, message: int | bytes | None) -> None:
        """Append a message of another system. `message` is the order id of an event, or a value that is no event.

        The message is marked as one that must become a dead letter, unless `message` is `UNKNOWN`.
        """
        new_id = UUID(int=len(self.broker.topics[TOPIC]))
        value = message
        if isinstance(message, int):
            value = encode(OrderEventFactory.build(event_id=new_id, order_id=message))
        headers = [("ce_id", str(new_id).encode())] + [(UNHANDLED, b"")] * (message != UNKNOWN)
        self.broker.append(TOPIC, key=b"foreign", value=value, headers=headers)

    def append_again(self, record: int) -> None:
        """Append a copy of a record to the topic.

        `record` is the index from the newest record (0) backwards, modulo the number of records.
        """
        records = self.broker.topics[TOPIC]
        if records:
            known = records[-1 - record % len(records)]
            self.broker.append(TOPIC, key=known.key, value=known.value, headers=known.headers)

    def drain(self, wait: Callable[[], None]) -> None:
        """Let relay and consumers work in rounds until no work is left. Call `wait` before each round.

        Raises AssertionError after six rounds without progress.
        """
        idle = 0
        while left := self._left():
            wait()
            self.sweep()
            for member in (0, 1):
                self.consume(member, size=4, batches=25)
            idle = 0 if self._left() < left else idle + 1
            # A message that kills its consumer needs some rounds until it is dead-lettered.
            assert idle < 6, f"{OutboxEvent.objects.pending().count()} rows wait, the lag is {self.group.lag()}"

    def _left(self) -> int:
        """Return how much work is left: the number of rows to send, plus twice the number of unread records.

        A record counts twice, because handling it may add a row to send.
        """
        return OutboxEvent.objects.pending().count() + 2 * self.group.lag()
