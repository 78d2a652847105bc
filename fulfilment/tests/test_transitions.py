"""The table of a fulfilment: every state with every message, and random walks with participants that misbehave."""

import random
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from events.wire.timestamps import now
from fulfilment.models import Fulfilment
from fulfilment.transitions import (
    AWAITED,
    CANCEL,
    DEADLINE,
    MESSAGES,
    RESOLVE,
    RETRY,
    STUCK,
    TABLE,
    UNDER_WAY,
    UNDO,
    OrderChange,
    State,
    Step,
    Then,
)

WALKS = 2_000
FORWARD = [State.PAYING, State.SHIPPING, State.COMPLETED]
BACK = [State.CANCELLING_SHIPMENT, State.REFUNDING, State.CANCELLED]

EXPECTED = {
    # message: the state that follows, for PAYING, SHIPPING, COMPLETED, CANCELLING_SHIPMENT, REFUNDING, CANCELLED,
    # STUCK_SHIPMENT, STUCK_REFUND. "." says that the message changes nothing.
    "PAYMENT_CHARGED": "SHIPPING . . . . REFUNDING . .",
    "PAYMENT_DECLINED": "CANCELLED CANCELLING_SHIPMENT CANCELLING_SHIPMENT . . . . .",
    "PAYMENT_FAILED": "REFUNDING . . . . REFUNDING . .",
    "SHIPMENT_BOOKED": ". COMPLETED . . CANCELLING_SHIPMENT CANCELLING_SHIPMENT . CANCELLING_SHIPMENT",
    "SHIPMENT_REFUSED": ". REFUNDING CANCELLING_SHIPMENT . . . . .",
    "SHIPMENT_FAILED": ". CANCELLING_SHIPMENT . . CANCELLING_SHIPMENT CANCELLING_SHIPMENT . CANCELLING_SHIPMENT",
    "SHIPMENT_CANCELLED": ". . . REFUNDING . . REFUNDING .",
    "SHIPMENT_CANCELLATION_FAILED": ". . . CANCELLING_SHIPMENT . . . .",
    "PAYMENT_REFUNDED": ". . . . CANCELLED . . CANCELLED",
    "REFUND_FAILED": ". . . . REFUNDING . . .",
    "DEADLINE": "REFUNDING CANCELLING_SHIPMENT . CANCELLING_SHIPMENT REFUNDING . . .",
    "GIVE_UP": ". . . STUCK_SHIPMENT STUCK_REFUND . . .",
    "CANCEL": "REFUNDING CANCELLING_SHIPMENT CANCELLING_SHIPMENT . . . . .",
    "UNDO": "REFUNDING CANCELLING_SHIPMENT CANCELLING_SHIPMENT . . . . .",
    "RETRY": ". . . . . . CANCELLING_SHIPMENT REFUNDING",
    "RESOLVE": ". . . . . . REFUNDING CANCELLED",
}
STATES = [*FORWARD, *BACK, *STUCK]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_in_each_state_leads_where_it_should(state: State, message: str) -> None:
    expected = EXPECTED[message].split()[STATES.index(state)]
    then = TABLE.get((state, message))
    assert (then.state if then else ".") == expected


def test_the_expectations_name_every_state_and_message() -> None:
    assert set(STATES) == set(State)
    assert set(EXPECTED) == set(MESSAGES)
    assert {len(row.split()) for row in EXPECTED.values()} == {len(STATES)}


@pytest.mark.parametrize(("state", "message"), TABLE)
def test_each_row_sends_the_command_that_its_state_waits_for(state: State, message: str) -> None:
    then = TABLE[state, message]
    sends = then.state in UNDER_WAY and not then.pauses
    assert then.command == (AWAITED[then.state] if sends else None)


@pytest.mark.parametrize(("state", "message"), TABLE)
def test_the_order_changes_with_the_payment_and_at_the_end(state: State, message: str) -> None:
    expected = {State.SHIPPING: OrderChange.PAY, State.CANCELLED: OrderChange.CANCEL}
    assert TABLE[state, message].order == expected.get(TABLE[state, message].state)


@pytest.mark.parametrize("state", UNDER_WAY)
def test_a_deadline_leads_on_from_every_waiting_state(state: State) -> None:
    assert (state, DEADLINE) in TABLE


@dataclass
class Provider:
    """A provider with one action, a charge or a booking, under one key. Once undone, the action is never done again."""

    does: str
    refuses: str
    fails: str
    undoes: str
    cannot_undo: str
    stands: bool = False
    is_undone: bool = False
    refused: bool = False
    times: int = 0
    """Number of times that the provider has done the action."""
    out_of_order: bool = False
    """Whether an attempt to undo the action fails now."""

    def do(self, chance: random.Random) -> str:
        """Try the action, and return the participant's reply.

        The participant may give up without knowing whether the provider has acted.
        """
        gives_up = chance.random() < 0.2
        acts = not gives_up or chance.random() < 0.5
        if acts and not self.stands and not self.is_undone and not self.refused:
            self.refused = chance.random() < 0.15
            self.stands = not self.refused
            self.times += self.stands
        if gives_up:
            return self.fails
        return self.does if self.stands else self.refuses

    def undo(self) -> str:
        if self.out_of_order:
            return self.cannot_undo
        self.stands, self.is_undone = False, True
        return self.undoes


@dataclass
class World:
    """One fulfilment, its order, both providers, and the messages between them, which come in any order and number."""

    chance: random.Random
    fulfilment: Fulfilment = field(default_factory=lambda: Fulfilment(order_id=1))
    order: str = "PENDING"
    commands: list[Step] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    command_ids: dict[Step, UUID] = field(default_factory=dict)
    used: set[tuple[State, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        # A walk has lost replies or wrong refusals, not both: a wrong refusal is noticed only by the right reply.
        self.loses = self.chance.random() < 0.5
        self.payment = Provider(
            "PAYMENT_CHARGED", "PAYMENT_DECLINED", "PAYMENT_FAILED", "PAYMENT_REFUNDED", "REFUND_FAILED"
        )
        self.shipping = Provider(
            "SHIPMENT_BOOKED",
            "SHIPMENT_REFUSED",
            "SHIPMENT_FAILED",
            "SHIPMENT_CANCELLED",
            "SHIPMENT_CANCELLATION_FAILED",
        )
        self.fulfilment.begin(at=now())
        self.commands.append(Step.PAYMENT)

    def take(self, message: str) -> None:
        self.used.add((State(self.fulfilment.state), self.fulfilment._or_last(message)))
        then = self.fulfilment.take(message, at=now())
        for name, step in self.fulfilment.steps.items():
            assert self.command_ids.setdefault(Step(name), step.command_id) == step.command_id
        if then:
            self._follow(then)

    def _follow(self, then: Then) -> None:
        if then.order is OrderChange.PAY:
            assert self.order == "PENDING"
            self.order = "PAID"
        if then.order is OrderChange.CANCEL:
            self.order = "CANCELLED"
        if then.command:
            self.commands.append(then.command)

    def deliver_command(self, *, again: bool) -> None:
        index = self.chance.randrange(len(self.commands))
        command = self.commands[index] if again else self.commands.pop(index)
        provider = self.payment if command in (Step.PAYMENT, Step.REFUND) else self.shipping
        is_forward = command in (Step.PAYMENT, Step.SHIPMENT)
        self.replies.append(provider.do(self.chance) if is_forward else provider.undo())

    def deliver_reply(self, *, again: bool) -> None:
        index = self.chance.randrange(len(self.replies))
        self.take(self.replies[index] if again else self.replies.pop(index))

    def pass_deadline(self) -> None:
        if self.fulfilment.deadline_at:
            self.take(DEADLINE)

    def resolve(self) -> None:
        """If the fulfilment is stuck, let an operator undo its charge or shipment by hand, and send `RESOLVE`.

        The operator does not void the provider's idempotency key. So if the provider has made no charge or shipment
        yet, a late command can still make it.
        """
        if self.fulfilment.state in STUCK:
            provider = self.payment if self.fulfilment.state == State.STUCK_REFUND else self.shipping
            provider.stands, provider.is_undone = False, provider.is_undone or provider.stands
            self.take(RESOLVE)

    def step(self) -> None:
        match self.chance.choice(["command", "reply", "reply", "lose", "contradict", "deadline", "person", "fault"]):
            case "command" if self.commands:
                self.deliver_command(again=self.chance.random() < 0.3)
            case "reply" if self.replies:
                self.deliver_reply(again=self.chance.random() < 0.3)
            case "lose" if self.loses and self.replies and self.chance.random() < 0.3:
                self.replies.pop(self.chance.randrange(len(self.replies)))
            case "contradict" if not self.loses and self.chance.random() < 0.3:
                provider = self.chance.choice([self.payment, self.shipping])
                self.replies += [provider.refuses, provider.does] if provider.stands else []
            case "deadline" if self.chance.random() < 0.3:
                self.pass_deadline()
            case "person" if self.chance.random() < 0.2:
                self.chance.choice([lambda: self.take(CANCEL), lambda: self.take(UNDO), self.resolve])()
            case "fault" if self.chance.random() < 0.3:
                provider = self.chance.choice([self.payment, self.shipping])
                provider.out_of_order = not provider.out_of_order
            case _:
                pass

    def heal(self) -> None:
        """Repair both providers, and deliver all messages that are left.

        Then let deadlines pass and an operator retry, until the fulfilment is completed or cancelled.
        """
        self.payment.out_of_order = self.shipping.out_of_order = False
        for _ in range(200):
            while self.commands or self.replies:
                if self.commands:
                    self.deliver_command(again=False)
                if self.replies:
                    self.deliver_reply(again=False)
            if self.fulfilment.state in (State.COMPLETED, State.CANCELLED):
                return
            self.take(RETRY) if self.fulfilment.state in STUCK else self.pass_deadline()
        raise AssertionError(f"{self.fulfilment.state} does not come to rest")


@pytest.fixture
def _two_attempts(settings: Any) -> None:
    settings.FULFILMENT_UNDO_ATTEMPTS = 2


def walk(seed: int) -> World:
    """Return the `World` of one fulfilment after 0 to 79 random steps and `World.heal`. `seed` decides the steps."""
    world = World(random.Random(seed))
    for _ in range(world.chance.randrange(80)):
        world.step()
    world.heal()
    return world


@pytest.mark.usefixtures("_two_attempts")
def test_every_walk_ends_with_all_done_or_all_undone() -> None:
    """Replies are doubled, delayed, reordered, lost and wrong, providers fail, and people cancel, undo and resolve."""
    for seed in range(WALKS):
        world = walk(seed)
        at_rest = (world.fulfilment.state, world.payment.stands, world.shipping.stands, world.order)
        assert at_rest in [("COMPLETED", True, True, "PAID"), ("CANCELLED", False, False, "CANCELLED")], seed
        assert world.payment.times <= 1, seed
        assert world.shipping.times <= 1, seed


@pytest.mark.usefixtures("_two_attempts")
def test_the_walks_use_every_row_of_the_table() -> None:
    used = {row for seed in range(WALKS) for row in walk(seed).used}
    assert set(TABLE) - used == set()
