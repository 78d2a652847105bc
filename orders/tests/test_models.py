from collections.abc import Callable
from decimal import Decimal
from itertools import product

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from orders.events import ORDER_EVENT_TYPES
from orders.history import maintenance
from orders.models import InvalidTransition, Order, OrderItem, UnknownHistory
from orders.services import Change, Line, cancel_order, pay_order, place_order

pytestmark = pytest.mark.django_db


@pytest.fixture
def placed(user: User) -> Change:
    return place_order(user_id=user.pk, lines=[Line(product_id=1, quantity=2, price=Decimal("100.00"))])


def test_a_pending_order_can_be_paid_and_then_cancelled(placed: Change) -> None:
    assert pay_order(order_id=placed.order.pk).order.status == "PAID"
    assert cancel_order(order_id=placed.order.pk).order.status == "CANCELLED"


def test_an_order_cannot_be_paid_twice(placed: Change) -> None:
    pay_order(order_id=placed.order.pk)
    with pytest.raises(InvalidTransition, match="is PAID and cannot become PAID"):
        pay_order(order_id=placed.order.pk)


def test_a_cancelled_order_stays_cancelled(placed: Change) -> None:
    cancel_order(order_id=placed.order.pk)
    for change in (pay_order, cancel_order):
        with pytest.raises(InvalidTransition):
            change(order_id=placed.order.pk)


@pytest.mark.parametrize(
    ("field", "value", "constraint"),
    [
        ("quantity", 0, "item_quantity_positive"),
        ("price", Decimal("-0.01"), "item_price_not_negative"),
        ("product_id", 0, "item_product_id_positive"),
    ],
)
def test_the_database_refuses_an_impossible_item(placed: Change, field: str, value: object, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint), maintenance():
        OrderItem.objects.filter(order=placed.order).update(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "constraint"),
    [("total_amount", Decimal(-1), "order_total_not_negative"), ("status", "LOST", "order_status_known")],
)
def test_the_database_refuses_an_impossible_order(placed: Change, field: str, value: object, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Order.objects.filter(pk=placed.order.pk).update(**{field: value})


@pytest.mark.parametrize("way", [[], [pay_order], [cancel_order], [pay_order, cancel_order]])
def test_status_and_number_determine_the_event_types(placed: Change, way: list[Callable[..., Change]]) -> None:
    recorded = [placed.event.event_type, *(change(order_id=placed.order.pk).event.event_type for change in way)]
    assert list(Order.objects.get().event_types) == recorded


def test_every_type_and_status_is_in_the_table_of_histories() -> None:
    assert {status for status, _ in Order.EVENT_TYPES} == set(Order.Status)
    assert {event_type for types in Order.EVENT_TYPES.values() for event_type in types} == set(ORDER_EVENT_TYPES)
    assert all(len(types) == number for (_, number), types in Order.EVENT_TYPES.items())


UNKNOWN = sorted(set(product(Order.Status.values, range(5))) - set(Order.EVENT_TYPES))


@pytest.mark.parametrize(("status", "number"), UNKNOWN)
def test_an_unknown_history_is_an_error(status: str, number: int) -> None:
    order = Order(pk=7, status=status, last_sequence=number)
    with pytest.raises(UnknownHistory, match=f"Order 7 is {status} with {number} event"):
        order.event_types  # noqa: B018 - it raises
