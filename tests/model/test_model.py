"""The product against a model: every change arrives exactly once, after any sequence of steps and failures.

Orders, outbox, publisher, relay and consumer are the product's own, on the real database. Kafka and the clock are
replaced. Crashes, outages, rebalances and late commits happen between any two steps.

If the environment has the variable CI, hypothesis tries the same examples in every run; otherwise each run explores
new ones. A failure prints its steps and a `@reproduce_failure` decorator. Put it on the class `Model` to repeat them.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.db.models import F
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from pytest_django import Settings

from events.models import OutboxEvent
from events.outbox import publisher
from events.wire import timestamps
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID
from orders.models import InvalidTransition
from orders.services import Change, Line, cancel_order, pay_order, place_order
from tests.model.interference import Clock, Crash, OtherProcess, SlowTransaction, crash, failing
from tests.model.invariants import Invariants
from tests.model.memory_broker import SendOutcome
from tests.model.pipeline import (
    DEADLY,
    ODD,
    PARTITIONS,
    POISON,
    REFUSED,
    UNKNOWN,
    empty_tables,
    fail_as_disconnected,
)

pytestmark = pytest.mark.django_db(transaction=True)

LINES = [Line(product_id=7, quantity=1, price=Decimal("50000.00"))]
ACTS: dict[str, Callable[..., Change]] = {ORDER_PAID: pay_order, ORDER_CANCELLED: cancel_order}
ALLOWED_AFTER = {ORDER_PAID: [ORDER_CREATED], ORDER_CANCELLED: [ORDER_CREATED, ORDER_PAID]}

INDEX = st.integers(0, 5)
"""Indices of orders, rows and records, counted from the newest."""
INDICES = st.lists(INDEX, min_size=1, max_size=3)
OUTCOMES = st.lists(st.sampled_from(SendOutcome), min_size=1, max_size=3)
MEMBER = st.sampled_from([0, 1])
OWNERS = st.tuples(*[MEMBER] * PARTITIONS)
SIZE = st.integers(1, 4)
BATCHES = st.integers(1, 3)
"""Numbers of batches that a consumer reads in one step of the model.

With two or more, it reads the second batch before it saves the first.
"""

EXPLORATION = hypothesis_settings(
    max_examples=80,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    # Explaining a failure takes longer than finding it.
    phases=set(Phase) - {Phase.explain},
    report_multiple_bugs=False,
)

clock = Clock()


def pass_time(seconds: float) -> None:
    """Advance the process's clock, and age all outbox rows by as much, because the database's clock gives their age."""
    clock.advance(seconds)
    OutboxEvent.objects.update(recorded_at=F("recorded_at") - timedelta(seconds=seconds))


class Model(Invariants):
    """The steps that hypothesis combines, such as place, pay, cancel, publish, relay, deliver, duplicate and crash.

    The arguments of a rule never depend on the database, so that hypothesis can repeat and shrink the steps.
    """

    def __init__(self) -> None:
        super().__init__()
        empty_tables()
        clock.start()
        self.customer = User.objects.get().pk
        self.slow: SlowTransaction[Change] | None = None
        self.rival = OtherProcess()

    def teardown(self) -> None:
        try:
            if self.slow:
                self.end_slow(commit=True)
            if sys.exception() is None:
                self.pipeline.drain(lambda: pass_time(60))
                self.everything_holds()
        finally:
            self.pipeline.close()
            self.rival.end()

    # Orders

    @rule(orders=st.integers(1, 3), paid=st.booleans())
    def place(self, orders: int, paid: bool) -> None:
        for _ in range(orders):
            placed = place_order(user_id=self.customer, lines=LINES)
            self.note(placed)
            if paid:
                self.note(pay_order(order_id=placed.order.pk))

    @precondition(lambda self: self.history)
    @rule(index=INDEX)
    def pay(self, index: int) -> None:
        self.change(index, ORDER_PAID)

    @precondition(lambda self: self.history)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        self.change(index, ORDER_CANCELLED)

    def change(self, index: int, event_type: str) -> None:
        order_id = self.order(index, event_type)
        if self.slow and self.slow.result.order.pk == order_id:
            return  # The change would wait for the row's lock.
        if self.history[order_id][-1] in ALLOWED_AFTER[event_type]:
            self.note(ACTS[event_type](order_id=order_id))
        else:
            with pytest.raises(InvalidTransition):
                ACTS[event_type](order_id=order_id)

    def order(self, index: int, event_type: str) -> int:
        """Return the id of an order whose status allows the event type. If there is none, return the id of any order.

        `index` chooses among these orders, from the newest one backwards, and starts again after the oldest one.
        """
        allowed = [order_id for order_id, events in self.history.items() if events[-1] in ALLOWED_AFTER[event_type]]
        orders = allowed or list(self.history)
        return orders[-1 - index % len(orders)]

    def note(self, change: Change) -> None:
        self.history.setdefault(change.order.pk, []).append(change.event.event_type)

    @precondition(lambda self: self.slow is None)
    @rule()
    def reorder_by_placing_slowly(self) -> None:
        """Place an order in a transaction that takes its ids now, and commits after later steps."""
        self.slow = SlowTransaction(partial(place_order, user_id=self.customer, lines=LINES))

    @precondition(lambda self: self.slow is None and self.history)
    @rule(index=INDEX)
    def reorder_by_cancelling_slowly(self, index: int) -> None:
        order_id = self.order(index, ORDER_CANCELLED)
        if self.history[order_id][-1] != ORDER_CANCELLED:
            self.slow = SlowTransaction(partial(cancel_order, order_id=order_id))

    @precondition(lambda self: self.slow is not None)
    @rule(commit=st.booleans())
    def reorder_by_ending(self, commit: bool) -> None:
        self.end_slow(commit=commit)

    def end_slow(self, *, commit: bool) -> None:
        slow, self.slow = self.slow, None
        slow.end(commit=commit)
        if commit:
            self.note(slow.result)

    # To Kafka

    @rule(rows=INDICES, outcomes=OUTCOMES, restarted=st.booleans())
    def publish(self, rows: list[int], outcomes: list[SendOutcome], restarted: bool) -> None:
        with self.pipeline.broker.answering(outcomes):
            self.pipeline.take_fast_path(rows, restarted=restarted)

    @rule(outcomes=OUTCOMES, seconds=st.sampled_from([0, 1, 10]))
    def relay(self, outcomes: list[SendOutcome], seconds: int) -> None:
        pass_time(seconds)
        with self.pipeline.broker.answering(outcomes):
            self.pipeline.sweep()

    @rule(rows=INDICES, outcomes=OUTCOMES)
    def duplicate_by_both_paths(self, rows: list[int], outcomes: list[SendOutcome]) -> None:
        """Let the fast path (`BackgroundPublisher`) send `rows` so slowly that the relay sends them as well."""

        def interfere() -> None:
            pass_time(10)
            with self.rival.at_work():
                self.pipeline.sweep()
                self.everything_holds()

        with self.pipeline.broker.answering(outcomes), self.pipeline.broker.amid_send.calling(interfere):
            self.pipeline.take_fast_path(rows)

    @rule(rows=INDICES, error=st.sampled_from([Crash, OperationalError]), executed=st.booleans())
    def crash_of_the_fast_path(self, rows: list[int], error: type[BaseException], executed: bool) -> None:
        with failing("SET published_at", error, executed=executed):
            self.pipeline.take_fast_path(rows)

    @rule(error=st.sampled_from([Crash, OperationalError]), executed=st.booleans())
    def crash_of_the_relay(self, error: type[BaseException], executed: bool) -> None:
        pass_time(10)
        with failing("SET published_at", error, executed=executed):
            self.pipeline.sweep()

    # From Kafka

    @rule(member=MEMBER, size=SIZE, batches=BATCHES)
    def deliver(self, member: int, size: int, batches: int) -> None:
        self.pipeline.consume(member, size=size, batches=batches)

    @rule(member=MEMBER, size=SIZE)
    def deliver_through_an_outage(self, member: int, size: int) -> None:
        with self.pipeline.members[member].subscription.amid_save.calling(fail_as_disconnected, times=3):
            self.pipeline.consume(member, size=size, batches=8)

    @rule(member=MEMBER, size=SIZE, batches=BATCHES, saved=st.booleans())
    def crash_of_a_consumer(self, member: int, size: int, batches: int, saved: bool) -> None:
        """Let a consumer crash while it saves a batch; with `saved`, between saving it and committing its offsets.

        See `Pipeline.consume` for `member`, `size` and `batches`.
        """
        victim = self.pipeline.members[member]
        with (victim.source.amid_commit if saved else victim.subscription.amid_save).calling(crash):
            self.pipeline.consume(member, size=size, batches=batches)

    @rule(owners=OWNERS)
    def rebalance(self, owners: Sequence[int]) -> None:
        self.pipeline.group.rebalance(owners)

    @rule(member=MEMBER, size=SIZE, batches=BATCHES, saved=st.booleans(), owners=OWNERS, overtaken=st.booleans())
    def rebalance_amid_a_batch(
        self, member: int, size: int, batches: int, saved: bool, owners: Sequence[int], overtaken: bool
    ) -> None:
        """Assign the partitions to `owners` after `member` has read a batch and before it saves the batch.

        With `saved`, this happens after `member` has saved the batch and before it commits the offsets. If `overtaken`,
        the other member then consumes a batch before `member` goes on.
        """

        def interfere() -> None:
            self.pipeline.group.rebalance(owners)
            if overtaken:
                self.pipeline.consume(1 - member, size=4)

        source = self.pipeline.members[member].source
        with (source.amid_commit if saved else source.amid_poll).calling(interfere):
            self.pipeline.consume(member, size=size, batches=batches)

    # On the topic

    @rule(record=INDEX)
    def duplicate_record(self, record: int) -> None:
        self.pipeline.append_again(record)

    @rule(partition=st.sampled_from(range(PARTITIONS)), records=SIZE)
    def duplicate_batch(self, partition: int, records: int) -> None:
        self.pipeline.group.forget(partition, records=records)

    @rule(message=st.sampled_from([UNKNOWN, DEADLY, REFUSED, ODD, *POISON]))
    def foreign(self, message: int | bytes | None) -> None:
        self.pipeline.append_foreign(message)


def test_every_change_arrives_exactly_once(
    user: User, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timestamps, "datetime", clock)
    monkeypatch.setattr(publisher, "time", clock)
    settings.OUTBOX_BATCH_SIZE = 2
    settings.CONSUMER_RETRY_FIRST = 0
    settings.CONSUMER_DEATHS = 2
    with caplog.at_level(logging.CRITICAL, "events"):
        run_state_machine_as_test(Model, settings=EXPLORATION)
