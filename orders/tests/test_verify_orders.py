"""`verify_orders` finds each order that differs from its events, no matter which program changed it."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from events.models import OutboxEvent
from events.wire.timestamps import now
from orders import verification
from orders.history import maintenance, move_to_history
from orders.management.commands import verify_orders
from orders.models import Order, OrderHistory, OrderItem
from orders.services import Line, cancel_order, pay_order, place_order
from testkit.factories import OrderFactory, OutboxEventFactory, UserFactory

pytestmark = pytest.mark.django_db

Verify = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    """Return a function that runs the command, and returns what it prints and the orders that it names."""

    def run(*arguments: str) -> tuple[str, list[str]]:
        failed = None
        try:
            call_command("verify_orders", *arguments)
        except CommandError as error:
            failed = error
        printed = capsys.readouterr()
        assert (failed and failed.returncode) == (1 if printed.err else None)
        return printed.out.strip(), printed.err.splitlines()

    return run


def place(user: User, *, changes: int = 3) -> Order:
    lines = [Line(1, 2, Decimal("100.00")), Line(7, 1, Decimal("0.05"))]
    order = place_order(user_id=user.pk, lines=lines).order
    for change in [pay_order, cancel_order][: changes - 1]:
        order = change(order_id=order.pk).order
    return order


def move(*numbers: int) -> None:
    rows = OutboxEvent.objects.filter(sequence__in=numbers)
    rows.update(published_at=now(), published_partition=0, published_offset=0)
    move_to_history(list(rows.values_list("pk", flat=True)))


MOVED = pytest.mark.parametrize("moved", [(), (1,), (2, 3), (1, 2, 3)], ids=str)


@MOVED
def test_orders_of_the_service_are_right(verify: Verify, user: User, moved: tuple[int, ...]) -> None:
    for changes in (1, 2, 3):
        place(user, changes=changes)
    cancel_order(order_id=place(user, changes=1).pk)
    place_order(user_id=user.pk, lines=[Line(2**63 - 1, 1_000_000, Decimal("9999999999.99"))] * 100)
    place_order(user_id=user.pk, lines=[Line(1, 1, Decimal(0))])
    move(*moved)
    assert verify() == ("checked 6, wrong 0", [])


def test_no_orders_are_right(verify: Verify) -> None:
    assert verify() == ("checked 0, wrong 0", [])


def test_an_order_of_an_earlier_release_is_right(verify: Verify, user: User) -> None:
    """An earlier release computed the ids of an order's events, and stored none or only some of them."""
    for known in (None, 1):
        order = place(user, changes=1)
        computed = Order(pk=order.pk, created_at=order.created_at).event_id(1)
        row = OutboxEvent.objects.get(stream=order.stream)
        value = json.loads(bytes(row.value or b"")) | {"eventId": str(computed)}
        OutboxEvent.objects.filter(pk=row.pk).update(event_id=computed, value=json.dumps(value).encode())
        Order.objects.filter(pk=order.pk).update(event_ids=None if known is None else [])
    assert verify() == ("checked 2, wrong 0", [])


@MOVED
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"status": "PAID"}, "status is PAID, and its events give CANCELLED"),
        ({"status": "PENDING"}, "status is PENDING, and its events give CANCELLED"),
        ({"total_amount": Decimal("200.06")}, "total_amount is 200.06, and its events give 200.05"),
        ({"total_amount": Decimal("0")}, "total_amount is 0.00, and its events give 200.05"),
        ({"last_sequence": 2}, "last_sequence is 2, and its last event is number 3"),
        ({"last_sequence": 0}, "last_sequence is 0, and its last event is number 3"),
        ({"last_sequence": 4}, "last_sequence is 4, and event 4 is missing"),
        ({"last_sequence": 2**31 - 1}, "last_sequence is 2147483647, and events 4 to 2147483647 are missing"),
        ({"event_ids": None}, "event_ids give event 1 the id"),
        ({"event_ids": []}, "event_ids give event 1 the id"),
        ({"event_ids": [UUID(int=1)] * 3}, "event_ids give event 1 the id 00000000-0000-0000-0000-000000000001"),
    ],
    ids=str,
)
def test_an_order_changed_by_sql_is_named(
    verify: Verify, user: User, change: dict[str, Any], difference: str, moved: tuple[int, ...]
) -> None:
    place(user)
    changed = place(user)
    place(user, changes=2)
    move(*moved)
    Order.objects.filter(pk=changed.pk).update(**change)
    printed, (named,) = verify()
    assert printed == "checked 3, wrong 1"
    assert named.startswith(f"Order {changed.pk}: ")
    assert difference in named


def test_owner_and_time_changed_by_sql_are_named(verify: Verify, user: User) -> None:
    order = place(user)
    other = UserFactory.create()
    Order.objects.update(user=other, created_at=order.created_at + timedelta(milliseconds=1))
    _, (named,) = verify()
    assert f"user_id is {other.pk}, and its events give {user.pk}; created_at is " in named


def test_the_last_event_id_changed_by_sql_is_named(verify: Verify, user: User) -> None:
    order = place(user)
    Order.objects.update(event_ids=[*(order.event_ids or [])[:2], uuid4()])
    _, (named,) = verify()
    assert "event_ids give event 3 the id" in named


@pytest.mark.parametrize("change", [{"price": 1}, {"quantity": 1}])
def test_an_item_changed_in_maintenance_is_named(verify: Verify, user: User, change: dict[str, int]) -> None:
    order = place(user)
    with maintenance():
        OrderItem.objects.filter(pk=order.items.earliest("pk").pk).update(**change)
    _, (named,) = verify()
    assert f"Order {order.pk}: its items amount to " in named


def test_an_order_without_any_item_is_named(verify: Verify, user: User) -> None:
    order = place(user)
    with maintenance():
        order.items.all().delete()
    assert verify() == ("checked 1, wrong 1", [f"Order {order.pk}: it has no items."])


@pytest.mark.parametrize("moved", [(), (1, 2, 3)], ids=str)
@pytest.mark.parametrize(
    ("number", "change", "difference"),
    [
        (1, None, "event 1 is missing"),
        (2, None, "event 2 is missing"),
        (3, None, "status is CANCELLED, and its events give PAID; last_sequence is 3, and event 3 is missing"),
        (3, {"sequence": 4}, "event 3 is missing"),
        (1, {"sequence": 4}, "event 1 is missing"),
        (2, {"event_type": "ORDER_CANCELLED"}, "eventType ORDER_PAID in its value, and ORDER_CANCELLED in its row"),
        (2, {"event_id": UUID(int=7)}, "event 2 has eventId"),
        (2, {"value": b"{}"}, "event 2 cannot be read"),
        (2, {"value": None}, "event 2 cannot be read: The value is null"),
        (3, {"created_at": now()}, "event 3 has timestamp"),
    ],
    ids=str,
)
def test_a_changed_history_is_named(
    verify: Verify, user: User, moved: tuple[int, ...], number: int, change: dict[str, Any] | None, difference: str
) -> None:
    place(user)
    order = place(user)
    move(*moved)
    model: Any = OrderHistory if moved else OutboxEvent
    with maintenance():
        rows = model.objects.filter(stream=order.stream, sequence=number)
        if change is None:
            rows.delete()
        else:
            assert rows.update(**change) == 1
    printed, (named,) = verify()
    assert printed == "checked 2, wrong 1"
    assert named.startswith(f"Order {order.pk}: ")
    assert difference in named


def rewrite(order: Order, number: int, **members: Any) -> None:
    """Change `members` in the JSON value of the order's event `number`, and give the row the value's event type."""
    row = OutboxEvent.objects.get(stream=order.stream, sequence=number)
    value = json.loads(bytes(row.value or b"")) | members
    columns = {"event_type": value["eventType"], "value": json.dumps(value).encode()}
    OutboxEvent.objects.filter(pk=row.pk).update(**columns)


@pytest.mark.parametrize(
    ("number", "members", "difference"),
    [
        (1, {"eventType": "ORDER_PAID"}, "event 1 is ORDER_PAID, not ORDER_CREATED"),
        (2, {"eventType": "ORDER_CREATED"}, "event 2 is ORDER_CREATED, which an order in PENDING cannot have"),
        (3, {"eventType": "ORDER_PAID"}, "event 3 is ORDER_PAID, which an order in PAID cannot have"),
        (2, {"totalAmount": 1}, "event 2 has user"),
        (2, {"userId": -5}, "event 2 has user -5"),
        (3, {"totalAmount": 99999999999999999999999999.99}, "event 3 "),
        (1, {"orderId": 1}, "event 1 has orderId 1"),
    ],
    ids=str,
)
def test_an_event_that_cannot_follow_is_named(
    verify: Verify, user: User, number: int, members: dict[str, Any], difference: str
) -> None:
    order = place(user)
    rewrite(order, number, **members)
    printed, (named,) = verify()
    assert printed == "checked 1, wrong 1"
    assert named.startswith(f"Order {order.pk}: {difference}")


def test_an_event_in_both_tables_is_named(verify: Verify, user: User) -> None:
    order = place(user)
    move(1, 2, 3)
    row = OrderHistory.objects.get(sequence=2)
    OutboxEventFactory.create(event_id=row.event_id, stream=row.stream, sequence=2, value=row.value)
    assert verify() == ("checked 1, wrong 1", [f"Order {order.pk}: event 2 is stored twice."])


def test_reordered_events_are_named(verify: Verify, user: User) -> None:
    order = place(user)
    for number, moved_to in ((2, 9), (3, 2), (9, 3)):
        OutboxEvent.objects.filter(sequence=number).update(sequence=moved_to)
    _, (named,) = verify()
    assert named == f"Order {order.pk}: event 3 is ORDER_PAID, which an order in CANCELLED cannot have."


def test_an_order_without_events_is_named(verify: Verify) -> None:
    order = OrderFactory.create()
    assert verify() == ("checked 1, wrong 1", [f"Order {order.pk}: it has no events."])


@pytest.mark.parametrize("moved", [(), (1,), (1, 2, 3)], ids=str)
def test_events_of_a_deleted_order_are_named(verify: Verify, user: User, moved: tuple[int, ...]) -> None:
    place(user)
    order = place(user)
    move(*moved)
    with maintenance():
        order.items.all().delete()
    Order.objects.filter(pk=order.pk).delete()
    assert verify() == ("checked 2, wrong 1", [f"There are events of {order.stream}, and no such order."])


@pytest.mark.parametrize("stream", ["order-", "order-x", "order-007", f"order-{'9' * 30}", "order--1", "order-1 "])
def test_events_of_a_strange_stream_are_named(verify: Verify, user: User, stream: str) -> None:
    OutboxEventFactory.create(stream=stream, sequence=5)
    OutboxEventFactory.create(stream=stream, sequence=2)
    assert verify() == ("checked 1, wrong 1", [f"There are events of {stream}, and no such order."])


def test_only_the_first_wrong_orders_are_named(verify: Verify, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_orders, "NAMED_ORDERS", 3)
    monkeypatch.setattr(verification, "BATCH_ORDERS", 2)
    orders = [place(user) for _ in range(7)]
    Order.objects.update(status="PAID")
    printed, named = verify()
    assert printed == "checked 7, wrong 7"
    assert [one.split(":")[0] for one in named] == [f"Order {order.pk}" for order in orders[:3]]


@pytest.mark.parametrize("forgotten", [(1,), (2,), (3,), (1, 2, 3)], ids=str)
def test_discarded_events_can_be_allowed(verify: Verify, user: User, forgotten: tuple[int, ...]) -> None:
    place(user)
    order = place(user)
    OutboxEvent.objects.filter(stream=order.stream, sequence__in=forgotten).delete()
    assert verify()[0] == "checked 2, wrong 1"
    allowed = "checked 2, wrong 0\nnot compared 1, because events are missing"
    assert verify("--allow-discarded") == (allowed, [])
    Order.objects.filter(pk=order.pk).update(last_sequence=9)
    assert verify("--allow-discarded")[0] == "checked 2, wrong 1"


def test_orders_that_change_meanwhile_are_right(verify: Verify, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps of `verify_orders`, orders are paid and placed, and rows move to the history."""
    monkeypatch.setattr(verification, "BATCH_ORDERS", 1)
    monkeypatch.setattr(verification, "BATCH_EVENTS", 1)
    waiting = [place(user, changes=1) for _ in range(4)]
    verify_step = verification._verify_step

    def verify_and_change(*arguments: Any, **options: Any) -> Any:
        step = verify_step(*arguments, **options)
        if waiting:
            pay_order(order_id=waiting.pop().pk)
            move(1)
            place(user)
        return step

    monkeypatch.setattr(verification, "_verify_step", verify_and_change)
    assert verify() == ("checked 4, wrong 0", [])
    assert not waiting


def test_one_statement_reads_an_order_and_its_events(user: User) -> None:
    """One statement sees a concurrent change or move of rows as a whole or not at all, whatever the isolation level."""
    place(user)
    with connection.execute_wrapper(count := Counter()):
        verification._verify_step(1, 2**62, allows_discarded=False)
    assert len(count.statements) == 1


class Counter:
    def __init__(self) -> None:
        self.statements: list[str] = []

    def __call__(self, execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        self.statements.append(sql)
        return execute(sql, *rest)
