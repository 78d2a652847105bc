import re
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from conftest import SetClock
from events.models import OutboxEvent
from events.wire.headers import unpack
from events.wire.timestamps import rfc3339
from orders.events import decode
from orders.models import InvalidTransition, Order, OrderItem
from orders.services import Line, cancel_order, pay_order, place_order, record_lost_event
from testkit.factories import OutboxEventFactory

pytestmark = pytest.mark.django_db

LINES = [
    Line(product_id=7, quantity=3, price=Decimal("0.10")),
    Line(product_id=8, quantity=1, price=Decimal("49999.70")),
]


def test_the_total_is_exact(user: User) -> None:
    assert place_order(user_id=user.pk, lines=LINES).order.total_amount == Decimal("50000.00")


def test_an_order_and_its_event_are_committed_together(user: User) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        place_order(user_id=user.pk, lines=LINES)
        raise RuntimeError
    assert not Order.objects.exists()
    assert not OutboxEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_order_whose_event_is_refused_is_not_placed(user: User) -> None:
    first = place_order(user_id=user.pk, lines=LINES).order
    OutboxEventFactory.create(stream=f"order-{first.pk + 1}", sequence=1)
    with pytest.raises(IntegrityError):
        place_order(user_id=user.pk, lines=LINES)
    assert Order.objects.get() == first
    assert OrderItem.objects.count() == len(LINES)


def test_the_event_matches_the_contract_exactly(user: User) -> None:
    order, event = place_order(user_id=user.pk, lines=LINES)
    assert event.topic == "order-events"
    assert event.key == str(order.pk).encode()
    assert (
        event.value
        == (
            f'{{"eventId":"{event.event_id}","eventType":"ORDER_CREATED","timestamp":"{rfc3339(order.created_at)}",'
            f'"orderId":{order.pk},"userId":{user.pk},"totalAmount":50000.00}}'
        ).encode()
    )
    headers = {name: value.decode() for name, value in unpack(event.headers) if value is not None}
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", headers.pop("traceparent"))
    assert headers == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": str(event.event_id),
        "ce_type": "ORDER_CREATED",
        "ce_source": "/orders",
        "ce_time": rfc3339(order.created_at),
        "ce_subject": str(order.pk),
        "ce_sequence": "1",
    }


def test_the_recorded_event_is_the_published_one(user: User) -> None:
    order, created = place_order(user_id=user.pk, lines=LINES)
    paid = pay_order(order_id=order.pk).event
    rows = OutboxEvent.objects.filter(stream=order.stream).order_by("sequence")
    assert [row.message for row in rows] == [created, paid]


def test_every_change_takes_the_next_number_within_its_order(user: User) -> None:
    order = place_order(user_id=user.pk, lines=LINES).order
    other = place_order(user_id=user.pk, lines=LINES).order
    pay_order(order_id=order.pk)
    cancel_order(order_id=order.pk)
    rows = OutboxEvent.objects.filter(stream=order.stream).order_by("sequence")
    assert [(row.sequence, row.event_type) for row in rows] == [
        (1, "ORDER_CREATED"),
        (2, "ORDER_PAID"),
        (3, "ORDER_CANCELLED"),
    ]
    assert OutboxEvent.objects.get(stream=other.stream).sequence == 1


def test_a_refused_change_records_no_event(user: User) -> None:
    order = place_order(user_id=user.pk, lines=LINES).order
    pay_order(order_id=order.pk)
    with pytest.raises(InvalidTransition):
        pay_order(order_id=order.pk)
    assert OutboxEvent.objects.filter(stream=order.stream).count() == 2
    assert Order.objects.get(pk=order.pk).last_sequence == 2


def test_a_user_cannot_change_an_order_of_another_user(user: User) -> None:
    order = place_order(user_id=user.pk, lines=LINES).order
    with pytest.raises(Order.DoesNotExist):
        pay_order(order_id=order.pk, user_id=user.pk + 1)


@pytest.mark.parametrize("changes", [[pay_order, cancel_order], [cancel_order], [pay_order]])
def test_a_lost_event_is_recorded_again_as_it_was(user: User, changes: list[object]) -> None:
    order = place_order(user_id=user.pk, lines=LINES).order
    for change in changes:
        change(order_id=order.pk)
    recorded = OutboxEvent.objects.filter(stream=order.stream).order_by("sequence")
    before = list(recorded.values_list("sequence", "event_id", "event_type", "key"))
    recorded.delete()
    for sequence, *_ in before:
        record_lost_event(order_id=order.pk, sequence=sequence)
    after = list(recorded.values_list("sequence", "event_id", "event_type", "key"))
    assert [tuple(map(_comparable, row)) for row in after] == [tuple(map(_comparable, row)) for row in before]


def times(order: Order) -> list[datetime]:
    rows = OutboxEvent.objects.filter(stream=order.stream).order_by("sequence")
    assert [decode(bytes(row.value)).timestamp for row in rows] == [row.created_at for row in rows]
    return [row.created_at for row in rows]


@pytest.mark.parametrize("lost", [[1], [2], [3], [1, 2], [2, 3], [1, 2, 3]])
def test_a_lost_event_has_the_time_of_the_previous_one(user: User, set_clock: SetClock, lost: list[int]) -> None:
    order = place_order(user_id=user.pk, lines=LINES).order
    for hours, change in enumerate([pay_order, cancel_order], start=1):
        set_clock(timedelta(hours=hours))
        change(order_id=order.pk)
    before = times(order)
    OutboxEvent.objects.filter(stream=order.stream, sequence__in=lost).delete()
    set_clock(timedelta(days=1))
    for sequence in lost:
        record_lost_event(order_id=order.pk, sequence=sequence)
    after = times(order)
    assert after == sorted(after)
    for sequence, (was, now_is) in enumerate(zip(before, after, strict=True), start=1):
        if sequence == 1 or sequence not in lost:
            assert now_is == was
        else:
            earlier = range(1, sequence)
            assert now_is == max(before[kept - 1] for kept in earlier if kept == 1 or kept not in lost)


def _comparable(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value
