"""Invariants of fulfilments, orders, and the simulated provider's records of charges and shipments.

Some are checked after every step of an example, the others once every checkout has ended or is stuck.
"""

from collections import Counter, defaultdict
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine, invariant

from events.models import DeadLetter, OutboxEvent
from events.subscriptions import subscription
from fulfilment.models import Fulfilment
from fulfilment.transitions import AT_REST, STUCK, State, Step
from tests.model.fulfilment_pipeline import PARTICIPANTS, FulfilmentPipeline

SERVICES = {Step.PAYMENT: "payments", Step.SHIPMENT: "shipments"}
STANDS = {"payments": "charged", "shipments": "booked"}
ORDER_STATUSES = {
    State.PAYING: {"PENDING"},
    State.SHIPPING: {"PAID"},
    State.COMPLETED: {"PAID"},
    State.CANCELLED: {"CANCELLED"},
}
"""Statuses that an order may have, by the state of its fulfilment.

In every other state, the fulfilment is being undone or is stuck, and the order may have one of `UNDOING_STATUSES`.
"""
UNDOING_STATUSES = {"PENDING", "PAID"}


class FulfilmentInvariants(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pipeline = FulfilmentPipeline()
        self.tokens: dict[int, str] = {}
        """The payment token of each order that was checked out, by order id."""
        self.done_by_hand: set[tuple[int, str]] = set()
        """(order id, service) of each charge or shipment that an operator has undone by hand.

        The provider's book, a file of payments and shipments, does not contain this.
        """
        self.resolved: set[tuple[int, str]] = set()
        """(order id, service) of each charge or shipment that was not in effect when an operator marked it resolved.

        The provider is not told, so it may still carry out a call that reaches it later.
        """

    @invariant()
    def everything_holds(self) -> None:
        self.nothing_is_done_or_undone_twice()
        fulfilments = list(Fulfilment.objects.select_related("order").prefetch_related("step_rows"))
        assert {one.pk for one in fulfilments} == set(self.tokens)
        for one in fulfilments:
            stands, state = self.stands(one), State(one.state)
            # If the provider executes a call after the operator's mark, the fulfilment undoes it when the reply comes.
            unexpected = {service for service in stands if (one.pk, service) not in self.resolved}
            assert one.order.status in ORDER_STATUSES.get(state, UNDOING_STATUSES), (one.pk, state)
            assert one.deadline_at if state not in AT_REST else not one.deadline_at, (one.pk, state)
            match state:
                case State.SHIPPING:
                    assert "payments" in stands, one.pk
                case State.COMPLETED:
                    assert stands == {"payments", "shipments"}, one.pk
                case State.REFUNDING | State.STUCK_REFUND:
                    assert "shipments" not in unexpected, one.pk
                case State.CANCELLED:
                    assert not unexpected, one.pk

    def nothing_is_done_or_undone_twice(self) -> None:
        for service in STANDS:
            for entry in self.pipeline.provider.book.read(service):
                assert max(Counter(entry["history"]).values()) == 1, entry

    def stands(self, fulfilment: Fulfilment) -> set[str]:
        """Return the services ("payments", "shipments") whose charge or booking for `fulfilment` is in effect.

        The service has done it, and neither the service nor an operator has undone it.
        """
        book = self.pipeline.provider
        return {
            service
            for step, service in SERVICES.items()
            if (row := fulfilment.steps.get(step))
            and (entry := book.find(service, row.command_id))
            and entry.state == STANDS[service]
            and (fulfilment.pk, service) not in self.done_by_hand
        }

    def everything_is_at_rest(self) -> None:
        """Check how each checkout has ended, and that each entry of the provider's book belongs to a step.

        The caller has retried all stuck fulfilments. So a fulfilment may be stuck only if the provider never refunds
        its charge.
        """
        self.everything_holds()
        fulfilments = list(Fulfilment.objects.prefetch_related("step_rows"))
        for one in fulfilments:
            stands = self.stands(one)
            assert one.state in AT_REST, (one.pk, one.state)
            if one.state in STUCK:
                assert (one.state, self.tokens[one.pk]) == (State.STUCK_REFUND, "tok_no_refund"), one.pk
                assert stands == {"payments"} or (not stands and (one.pk, "payments") in self.done_by_hand), one.pk
            elif one.state == State.CANCELLED:
                assert not stands, one.pk
        steps = {row.command_id: SERVICES.get(Step(name)) for one in fulfilments for name, row in one.steps.items()}
        for service in STANDS:
            for entry in self.pipeline.provider.book.read(service):
                assert steps.get(UUID(entry["id"])) == service, entry
        self.each_step_has_one_command_id()
        self.each_change_of_an_order_has_its_event()
        assert not list(DeadLetter.objects.values_list("topic", "error_message"))

    def each_step_has_one_command_id(self) -> None:
        command_ids: dict[tuple[int, str], set[UUID]] = defaultdict(set)
        for name in PARTICIPANTS:
            for record in self.pipeline.broker.topics[self.pipeline.groups[name].topic]:
                command = subscription(name).decode(record.value)
                command_ids[command.reference, command.event_type].add(command.command_id)
        assert all(len(ids) == 1 for ids in command_ids.values()), command_ids

    def each_change_of_an_order_has_its_event(self) -> None:
        recorded = Counter(OutboxEvent.objects.filter(topic="order-events").values_list("stream", flat=True))
        for one in Fulfilment.objects.select_related("order"):
            assert recorded[f"order-{one.pk}"] == one.order.last_sequence
