"""Event ids cannot be computed from public values, and a lost event gets the same id again."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from events.models import OutboxEvent
from events.wire.timestamps import rfc3339
from orders.models import Order
from orders.services import Change, Line, cancel_order, pay_order, place_order, record_lost_event

pytestmark = pytest.mark.django_db

LINES = [Line(product_id=1, quantity=2, price=Decimal("100.00"))]
CHANGES = {"pay": pay_order, "cancel": cancel_order}
HISTORIES: list[list[str]] = [[], ["pay"], ["cancel"], ["pay", "cancel"]]
"""The possible changes of an order after it was placed."""


@pytest.fixture
def order(user: User) -> Order:
    return place_order(user_id=user.pk, lines=LINES).order


def computed_id(order: Order, sequence: int) -> UUID:
    """Return the event id that an earlier release computes for the order's event number `sequence`."""
    return uuid5(NAMESPACE_URL, f"/orders/{order.pk}/{rfc3339(order.created_at)}/{sequence}")


def recorded_ids(order: Order) -> list[UUID]:
    return list(OutboxEvent.objects.filter(stream=order.stream).order_by("sequence").values_list("event_id", flat=True))


def as_an_earlier_release_records(event: Change) -> None:
    """Give the newest event of the order the id that an earlier release would give it."""
    order = event.order
    ids = None if order.last_sequence == 1 else (order.event_ids or [])[: order.last_sequence - 1]
    Order.objects.filter(pk=order.pk).update(event_ids=ids)
    OutboxEvent.objects.filter(event_id=event.event.event_id).update(event_id=computed_id(order, order.last_sequence))


def lose_and_record_again(order: Order) -> None:
    rows = OutboxEvent.objects.filter(stream=order.stream)
    sequences = range(1, rows.count() + 1)
    rows.delete()
    for sequence in sequences:
        record_lost_event(order_id=order.pk, sequence=sequence)


@pytest.mark.parametrize("way", HISTORIES)
def test_event_ids_cannot_be_computed_from_public_values(order: Order, way: Sequence[str]) -> None:
    for change in way:
        CHANGES[change](order_id=order.pk)
    ids = recorded_ids(order)
    computable = {computed_id(order, sequence) for sequence in range(10)}
    assert len(set(ids)) == len(way) + 1
    assert not computable & set(ids)
    assert all(event_id.version == 4 for event_id in ids)


@pytest.mark.parametrize("way", HISTORIES)
def test_a_lost_event_gets_its_id_back(order: Order, way: Sequence[str]) -> None:
    for change in way:
        CHANGES[change](order_id=order.pk)
    before = recorded_ids(order)
    lose_and_record_again(order)
    assert recorded_ids(order) == before


@pytest.mark.parametrize("way", HISTORIES)
@pytest.mark.parametrize("by_earlier_release", [(True, True, True), (True, False, True), (False, True, False)])
def test_earlier_and_this_release_side_by_side_agree_on_ids(
    user: User, way: Sequence[str], by_earlier_release: Sequence[bool]
) -> None:
    """During a rollout, each change of an order may be made by the earlier release or by this one."""
    change = place_order(user_id=user.pk, lines=LINES)
    if by_earlier_release[0]:
        as_an_earlier_release_records(change)
    for name, is_earlier in zip(way, by_earlier_release[1:], strict=False):
        change = CHANGES[name](order_id=change.order.pk)
        if is_earlier:
            as_an_earlier_release_records(change)
    order = Order.objects.get(pk=change.order.pk)
    before = recorded_ids(order)
    assert [event_id == computed_id(order, sequence) for sequence, event_id in enumerate(before, start=1)] == list(
        by_earlier_release[: len(before)]
    )
    assert [order.event_id(sequence) for sequence in range(1, len(before) + 1)] == before
    lose_and_record_again(order)
    assert recorded_ids(order) == before


def test_an_earlier_release_still_inserts_orders(user: User) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orders_order (user_id, total_amount, status, created_at, last_sequence)
            VALUES (%s, 1, 'PENDING', clock_timestamp(), 1) RETURNING id
            """,
            [user.pk],
        )
        (order_id,) = cursor.fetchone()
    order = Order.objects.get(pk=order_id)
    assert order.event_id(1) == computed_id(order, 1)
    paid = pay_order(order_id=order_id).event
    assert paid.event_id != computed_id(order, 2)
    assert Order.objects.get(pk=order_id).event_ids == [computed_id(order, 1), paid.event_id]


def test_the_migration_does_not_rewrite_the_table() -> None:
    def file() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_relation_filenode('orders_order')")
            (number,) = cursor.fetchone()
        return int(number)

    before = file()
    call_command("migrate", "orders", "0003_admin_lists", verbosity=0)
    call_command("migrate", "orders", verbosity=0)
    assert file() == before


@pytest.mark.parametrize("path", ["/api/orders", "/api/orders/{}"])
def test_the_api_neither_reads_nor_shows_an_orders_event_ids(api: APIClient, order: Order, path: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        shown = api.get(path.format(order.pk)).content.decode()
    assert f'"id":{order.pk}' in shown
    assert not any("event_ids" in query["sql"] for query in queries)
    assert not any(str(event_id) in shown for event_id in recorded_ids(order))
