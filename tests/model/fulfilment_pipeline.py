"""Fulfilment, payments and shipping with their topics and workers, connected by a Kafka in memory."""

from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgspec
from django.db.models import Q

from events.database_clock import database_now
from events.models import OutboxEvent
from events.subscriptions import subscription
from events.wire import commands
from events.work.kinds import Kind, kind_named
from events.work.outcomes import ServiceUnavailable
from events.work.worker import Worker
from fulfilment.models import Fulfilment, FulfilmentDeadline
from fulfilment.transitions import UNDER_WAY
from tests.model.book_provider import BookProvider, Payments, Shipments
from tests.model.interference import Crash
from tests.model.memory_broker import MemoryGroup
from tests.model.pipeline import PARTITIONS, Member, Sending

GROUPS = ("payments", "shipping", "fulfilment")
PARTICIPANTS = ("payments", "shipping")
DEADLINES = "fulfilment_deadlines"
FAR = 100
"""A number of records, or of pieces of work, that no example reaches."""


class FulfilmentPipeline(Sending):
    """Fast path, relay, one consumer of each group, the workers, and the provider. They work only when called."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = Payments.provider = Shipments.provider = BookProvider()
        self.groups = {name: MemoryGroup(self.broker, subscription(name).topic.name) for name in GROUPS}
        for group in self.groups.values():
            group.rebalance([0] * PARTITIONS)
        self.members = {name: self._member(name) for name in GROUPS}

    def close(self) -> None:
        super().close()
        self.provider.book.close()

    def _member(self, name: str) -> Member[Any]:
        return Member(self.groups[name], 0, subscription(name))

    def consume(self, name: str, *, size: int) -> None:
        """Let the consumer of a group handle a batch of up to `size` records."""
        try:
            self.members[name].consume(size=size, batches=1)
        except Crash:
            self.members[name].source.close()
            self.members[name] = self._member(name)

    def work(self, name: str, *, pieces: int = FAR) -> None:
        """Let a worker do up to `pieces` pieces of the kind of work `name`, one after another.

        First make all pending pieces of this kind due, as if the leases of dead workers had ended.
        """
        kind = self._one_by_one(name)
        kind.model.objects.pending().update(due_at=database_now())
        worker = Worker(kind, stopping=lambda: False, wait=self._never_wait)
        with suppress(Crash, ServiceUnavailable):
            for _ in range(pieces):
                if not worker.work_off_batch()[0]:
                    break

    def _one_by_one(self, name: str) -> Kind[Any]:
        """Return the kind of work `name`, changed so that a worker claims one piece at a time.

        In the model, a crash is an exception, after which a worker gives back the other pieces that it has claimed. A
        killed process gives nothing back. A worker with only one piece has no other piece to give back, so its crash
        has the same effect as a kill.
        """
        return replace(kind_named(name), concurrency=1, batch_size=1)

    def give_up(self, name: str) -> None:
        """Let the deadlines of a participant's pending commands pass, and let its worker give these commands up."""
        kind_named(name).model.objects.pending().update(deadline_at=database_now())
        self.work(name)

    def pass_deadline(self, order_id: int) -> None:
        """Make all deadlines of an order due, also those whose reply has already come, and let a worker handle them."""
        FulfilmentDeadline.objects.filter(fulfilment=order_id).update(due_at=database_now())
        worker = Worker(kind_named(DEADLINES), stopping=lambda: False, wait=self._never_wait)
        with suppress(Crash):
            worker.work_off_batch()

    def append_again(self, name: str, record: int, *, as_new: bool) -> None:
        """Append a copy of a record to the topic of the group `name`. With `as_new`, the copy has a new event id.

        `record` is the index from the newest record (0) backwards, modulo the number of records.
        """
        records = self.broker.topics[self.groups[name].topic]
        if not records:
            return
        known = records[-1 - record % len(records)]
        value: Any = known.value
        if as_new:
            message = subscription(name).decode(value)
            value = commands.encode(msgspec.structs.replace(message, event_id=uuid4()))
        self.broker.append(known.topic, key=known.key, value=value, headers=known.headers)

    def rest(self) -> None:
        """Let everything work until no fulfilment is under way and no message or command is left.

        When no message or command is left, the deadlines of the fulfilments under way pass. Raises AssertionError if 40
        rounds are not enough.
        """
        for _ in range(40):
            self.sweep()
            for name in GROUPS:
                self.consume(name, size=FAR)
            for name in PARTICIPANTS:
                self.work(name)
            if self._has_work():
                continue
            waiting = list(Fulfilment.objects.filter(state__in=UNDER_WAY).values_list("pk", flat=True))
            if not waiting:
                return
            for order_id in waiting:
                self.pass_deadline(order_id)
        raise AssertionError(f"Not at rest: {list(Fulfilment.objects.values_list('pk', 'state'))}")

    def _has_work(self) -> bool:
        ours = Q(topic__in=[group.topic for group in self.groups.values()])
        return (
            OutboxEvent.objects.pending().filter(ours).exists()
            or any(group.lag() for group in self.groups.values())
            or any(kind_named(name).model.objects.pending().exists() for name in PARTICIPANTS)
        )
