"""The product against a model: whatever happens in whatever order, every change arrives, once.

Orders, outbox, fast path, relay and consumer are the product's own, on the real database. Kafka and the clock are
replaced, and crashes, outages, rebalances and late commits come between any two steps.

Where the environment says CI, hypothesis tries the same examples every time; elsewhere every run explores others. A
failure names the steps to it, and the `@reproduce_failure` that repeats them when it is put on `Model`.
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

from events import timestamps
from events.models import OutboxEvent
from events.outbox import publisher
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
"""Of orders, rows and records, counted from the newest."""
INDICES = st.lists(INDEX, min_size=1, max_size=3)
OUTCOMES = st.lists(st.sampled_from(SendOutcome), min_size=1, max_size=3)
MEMBER = st.sampled_from([0, 1])
OWNERS = st.tuples(*[MEMBER] * PARTITIONS)
SIZE = st.integers(1, 4)

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
    """For this process, and for the database, by whose clock rows in the outbox grow old."""
    clock.advance(seconds)
    OutboxEvent.objects.update(recorded_at=F("recorded_at") - timedelta(seconds=seconds))


class Model(Invariants):
    """Each rule is named for its kind of step: place, pay, cancel, publish, relay, deliver, duplicate, reorder, crash,
    rebalance. What it may be given never depends on the database, so that hypothesis can repeat and shrink the steps.
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
            return  # It would wait for the row's lock.
        if self.history[order_id][-1] in ALLOWED_AFTER[event_type]:
            self.note(ACTS[event_type](order_id=order_id))
        else:
            with pytest.raises(InvalidTransition):
                ACTS[event_type](order_id=order_id)

    def order(self, index: int, event_type: str) -> int:
        """One that allows this change, where there is one."""
        allowed = [order_id for order_id, events in self.history.items() if events[-1] in ALLOWED_AFTER[event_type]]
        orders = allowed or list(self.history)
        return orders[-1 - index % len(orders)]

    def note(self, change: Change) -> None:
        self.history.setdefault(change.order.pk, []).append(change.event.event_type)

    @precondition(lambda self: self.slow is None)
    @rule()
    def reorder_by_placing_slowly(self) -> None:
        """An order gets its id and its row's id now, and is committed later."""
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
        """The fast path has rows in hand for so long that the relay sends them, too."""

        def meanwhile() -> None:
            pass_time(10)
            with self.rival.at_work():
                self.pipeline.sweep()
                self.everything_holds()

        with self.pipeline.broker.answering(outcomes), self.pipeline.broker.amid_send.calling(meanwhile):
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

    @rule(who=MEMBER, size=SIZE)
    def deliver(self, who: int, size: int) -> None:
        self.pipeline.consume(who, size=size)

    @rule(who=MEMBER, size=SIZE)
    def deliver_through_an_outage(self, who: int, size: int) -> None:
        with self.pipeline.members[who].subscription.amid_save.calling(fail_as_disconnected, times=3):
            self.pipeline.consume(who, size=size, batches=4)

    @rule(who=MEMBER, size=SIZE, saved=st.booleans())
    def crash_of_a_consumer(self, who: int, size: int, saved: bool) -> None:
        """Before its batch is saved, or between that and the commit of the offsets."""
        member = self.pipeline.members[who]
        with (member.source.amid_commit if saved else member.subscription.amid_save).calling(crash):
            self.pipeline.consume(who, size=size)

    @rule(owners=OWNERS)
    def rebalance(self, owners: Sequence[int]) -> None:
        self.pipeline.group.rebalance(owners)

    @rule(who=MEMBER, size=SIZE, saved=st.booleans(), owners=OWNERS, overtaken=st.booleans())
    def rebalance_amid_a_batch(self, who: int, size: int, saved: bool, owners: Sequence[int], overtaken: bool) -> None:
        """A member has its batch in hand, or saved, when partitions move, and perhaps their new owner is faster."""

        def meanwhile() -> None:
            self.pipeline.group.rebalance(owners)
            if overtaken:
                self.pipeline.consume(1 - who, size=4)

        source = self.pipeline.members[who].source
        with (source.amid_commit if saved else source.amid_poll).calling(meanwhile):
            self.pipeline.consume(who, size=size)

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
