"""Checkouts against a model: each ends with all done or all undone, after any sequence of steps and failures.

Fulfilment, payments, shipping, outbox, relay, consumers and workers are the product's own, on the real database. The
charges and bookings are in the development provider's store. Kafka and the calls to the provider are replaced.
`tests.model.test_model` says how hypothesis chooses the steps.
"""

import logging
import sys
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from pytest_django import Settings

from events.models import InboxEntry
from events.wire import commands
from events.wire.commands import Reply
from events.wire.timestamps import now
from fulfilment.advancing import NotPossible, ask, check_out
from fulfilment.models import Fulfilment
from fulfilment.transitions import REPLIES, RESOLVE, RETRY, STUCK, TABLE, UNDO, State
from orders.models import InvalidTransition
from orders.services import Line, UnderControl, pay_order, place_order, request_cancellation
from payments.models import PaymentCommand
from shipping.models import ShippingCommand
from tests.model.book_provider import CallOutcome
from tests.model.fulfilment_invariants import FulfilmentInvariants
from tests.model.fulfilment_pipeline import GROUPS, PARTICIPANTS
from tests.model.interference import Crash, OtherProcess, crash, failing
from tests.model.memory_broker import SendOutcome
from tests.model.pipeline import empty_tables
from tests.model.test_model import EXPLORATION, INDEX, INDICES, OUTCOMES, SIZE

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = st.sampled_from(["tok_ok", "tok_ok", "tok_declined", "tok_no_refund"])
PRODUCT = st.sampled_from([7, 7, 9_000_000])
GROUP = st.sampled_from(GROUPS)
PARTICIPANT = st.sampled_from(PARTICIPANTS)
CALL = st.sampled_from(CallOutcome)


class FulfilmentModel(FulfilmentInvariants):
    """The steps that hypothesis combines. The arguments of a rule never depend on the database."""

    def __init__(self) -> None:
        empty_tables(InboxEntry, PaymentCommand, ShippingCommand)
        super().__init__()
        self.customer = User.objects.get().pk
        self.rival = OtherProcess()

    def teardown(self) -> None:
        try:
            if sys.exception() is None:
                self.pipeline.rest()
                self.everything_holds()
                for order_id in Fulfilment.objects.stuck().values_list("pk", flat=True):
                    ask(RETRY, order_id=order_id)
                self.pipeline.rest()
                self.everything_is_at_rest()
        finally:
            self.pipeline.close()
            self.rival.end()

    # The customer and the operator

    @rule(token=TOKEN, product_id=PRODUCT)
    def checkout(self, token: str, product_id: int) -> None:
        lines = [Line(product_id=product_id, quantity=1, price=Decimal("50000.00"))]
        order_id = place_order(user_id=self.customer, lines=lines).order.pk
        check_out(order_id=order_id, user_id=self.customer, payment_token=token)
        self.tokens[order_id] = token

    @precondition(lambda self: self.tokens)
    @rule(index=INDEX)
    def second_checkout(self, index: int) -> None:
        with pytest.raises(NotPossible):
            check_out(order_id=self.order(index), user_id=self.customer, payment_token="tok_ok")

    @precondition(lambda self: self.tokens)
    @rule(index=INDEX)
    def pay(self, index: int) -> None:
        with pytest.raises(UnderControl):
            pay_order(order_id=self.order(index))

    @precondition(lambda self: self.tokens)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        order_id = self.order(index)
        if Fulfilment.objects.get(pk=order_id).state == State.CANCELLED:
            with pytest.raises(InvalidTransition):
                request_cancellation(order_id=order_id)
        else:
            request_cancellation(order_id=order_id)

    @precondition(lambda self: self.tokens)
    @rule(index=INDEX, message=st.sampled_from([UNDO, RETRY, RESOLVE]))
    def operate(self, index: int, message: str) -> None:
        """Let an operator send `message` to a fulfilment.

        Before RESOLVE, the provider executes all delayed calls. If the stuck charge or shipment is in effect after
        them, the operator undoes it by hand.
        """
        order_id = self.order(index, *(STUCK if message != UNDO else ()))
        state = State(Fulfilment.objects.get(pk=order_id).state)
        if (state, message) not in TABLE:
            with pytest.raises(NotPossible):
                ask(message, order_id=order_id)
            return
        if message == RESOLVE:
            self.pipeline.provider.let_all_arrive()
            service = "payments" if state == State.STUCK_REFUND else "shipments"
            stands = service in self.stands(Fulfilment.objects.get(pk=order_id))
            (self.done_by_hand if stands else self.resolved).add((order_id, service))
        ask(message, order_id=order_id)

    def order(self, index: int, *states: State) -> int:
        """Return the id of an order whose fulfilment has one of `states`; without such an order, of any order.

        `index` chooses among them, from the newest order backwards.
        """
        wanted = Fulfilment.objects.filter(state__in=states).order_by("pk").values_list("pk", flat=True)
        orders = list(wanted) or sorted(self.tokens)
        return orders[-1 - index % len(orders)]

    # Time

    @precondition(lambda self: self.tokens)
    @rule(index=INDEX)
    def deadline(self, index: int) -> None:
        self.pipeline.pass_deadline(self.order(index))

    @precondition(lambda self: self.tokens)
    @rule(index=INDEX, executed=st.booleans())
    def crash_of_the_deadlines(self, index: int, executed: bool) -> None:
        with failing('INTO "fulfilment_fulfilment"', Crash, executed=executed):
            self.pipeline.pass_deadline(self.order(index))

    @rule(name=PARTICIPANT)
    def give_up(self, name: str) -> None:
        self.pipeline.give_up(name)

    # Between the apps

    @rule(outcomes=OUTCOMES)
    def send(self, outcomes: list[SendOutcome]) -> None:
        with self.pipeline.broker.answering(outcomes):
            self.pipeline.sweep()

    @rule(rows=INDICES, outcomes=OUTCOMES)
    def reply_before_the_command_is_marked_as_sent(self, rows: list[int], outcomes: list[SendOutcome]) -> None:
        """Let participants and fulfilment do all their work before the sender of a command marks it as published."""

        def interfere() -> None:
            with self.rival.at_work():
                for name in PARTICIPANTS:
                    self.pipeline.consume(name, size=4)
                    self.pipeline.work(name)
                self.pipeline.sweep()
                self.pipeline.consume("fulfilment", size=4)
                self.everything_holds()

        with self.pipeline.broker.answering(outcomes), self.pipeline.broker.amid_send.calling(interfere):
            self.pipeline.take_fast_path(rows)

    @rule(name=GROUP, size=SIZE)
    def deliver(self, name: str, size: int) -> None:
        self.pipeline.consume(name, size=size)

    @rule(name=GROUP, size=SIZE, saved=st.booleans(), executed=st.booleans())
    def crash_of_a_consumer(self, name: str, size: int, saved: bool, executed: bool) -> None:
        """With `saved`, let a consumer crash between saving a batch and committing the batch's offsets.

        Otherwise let it crash at an INSERT of the batch: after its execution if `executed`, else before.
        """
        if saved:
            with self.pipeline.members[name].source.amid_commit.calling(crash):
                self.pipeline.consume(name, size=size)
        else:
            written = {"fulfilment": 'INTO "fulfilment_fulfilment"'}.get(name, f'INTO "{name}_')
            with failing(written, Crash, executed=executed):
                self.pipeline.consume(name, size=size)

    @rule(name=GROUP, record=INDEX, as_new=st.booleans())
    def doubled_or_late(self, name: str, record: int, as_new: bool) -> None:
        """Append a copy of a command or a reply to its topic, so that it comes again after later ones.

        `name` and `record` choose the message, as in `FulfilmentPipeline.append_again`. With `as_new`, the copy has a
        new event id.
        """
        self.pipeline.append_again(name, record, as_new=as_new)

    @precondition(lambda self: self.tokens)
    @rule(index=INDEX, other=INDEX)
    def forged_replies(self, index: int, other: int) -> None:
        """Append a reply of each type for an order. Each has the id of a command that it does not answer.

        `index` chooses the order, and `other` the order of the command, as in `order`. They may be the same order. If
        that order has no such command, the id is new.
        """
        order_id, other_id = self.order(index), self.order(other)
        steps = Fulfilment.objects.get(pk=other_id).steps
        for event_type, (answered, _) in REPLIES.items():
            wrong = [row.command_id for step, row in steps.items() if order_id != other_id or step != answered]
            reply = Reply(
                event_id=uuid4(),
                event_type=event_type,
                timestamp=now(),
                command_id=wrong[-1] if wrong else uuid4(),
                reference=order_id,
            )
            topic = self.pipeline.groups["fulfilment"].topic
            self.pipeline.broker.append(topic, key=str(order_id).encode(), value=commands.encode(reply), headers=[])

    # To the provider

    @rule(name=PARTICIPANT, pieces=SIZE, outcome=CALL)
    def work(self, name: str, pieces: int, outcome: CallOutcome) -> None:
        with self.pipeline.provider.answering(outcome):
            self.pipeline.work(name, pieces=pieces)

    @rule(index=INDEX)
    def late_call_arrives(self, index: int) -> None:
        self.pipeline.provider.let_one_arrive(index)

    @rule(name=PARTICIPANT, executed=st.booleans())
    def crash_of_a_worker(self, name: str, executed: bool) -> None:
        """Let a worker crash at the SQL that records an answer: after its execution if `executed`, else before."""
        with failing("AS settled", Crash, executed=executed):
            self.pipeline.work(name)

    # All parts in one step, so that short examples get far

    @rule(rounds=st.integers(1, 3))
    def go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self.pipeline.sweep()
            for name in PARTICIPANTS:
                self.pipeline.consume(name, size=4)
                self.pipeline.work(name)
            self.pipeline.sweep()
            self.pipeline.consume("fulfilment", size=4)


def test_every_checkout_ends_with_all_done_or_all_undone(
    user: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OUTBOX_RELAY_GRACE = timedelta(0)
    settings.CONSUMER_RETRY_FIRST = 0
    settings.CONSUMER_DEATHS = 100
    settings.FULFILMENT_UNDO_ATTEMPTS = 2
    settings.PAYMENT_PROVIDER = "tests.model.book_provider.Payments"
    settings.SHIPPING_PROVIDER = "tests.model.book_provider.Shipments"
    with caplog.at_level(logging.CRITICAL, "events"):
        run_state_machine_as_test(
            FulfilmentModel, settings=hypothesis_settings(EXPLORATION, max_examples=40, stateful_step_count=40)
        )
