"""The progress of events that the start page shows, and when an event counts as lost or doubled."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from pytest_django import DjangoAssertNumQueries

from commerce.devserver.journeys import as_json, count, follow
from conftest import SetClock
from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.outbox.delivery import mark_published
from events.troubles import Poison
from events.wire.headers import Header, unpack
from events.wire.timestamps import rfc3339
from orders.history import move_to_history
from orders.models import Order
from orders.services import Change, Line, pay_order, place_order
from testkit.factories import NotificationFactory, UserFactory, kafka_record, poison_that_names

pytestmark = pytest.mark.django_db

GROUP = settings.NOTIFICATION_CONSUMER_GROUP


@pytest.fixture
def placed(user: User) -> Callable[[], Change]:
    return lambda: place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])


def publish(change: Change, *, partition: int = 1, offset: int = 7) -> None:
    mark_published(messages=[change.event], positions=[(partition, offset)], path=OutboxEvent.Path.RELAY)


def notify(change: Change, **forged: Any) -> None:
    fields = {"event_id": change.event.event_id, "order_id": change.order.pk, "user_id": change.order.user_id}
    NotificationFactory.create(**{**fields, "type": "ORDER_CREATED", **forged})


def make_dead_letter(change: Change, *, group: str = GROUP, headers: Sequence[Header] = (), **forged: Any) -> None:
    named = {"event_id": change.event.event_id, "order_id": change.order.pk, "event_type": "ORDER_CREATED"}
    record = kafka_record(poison_that_names(**{**named, **forged}), headers=list(headers))
    record_dead_letter(record=record, error=Poison("no event"), group=group)


def figures(user: User, *order_ids: int, committed: dict[int, int] | None = None) -> dict[str, int]:
    return {
        name: number
        for name, number in count(
            follow(order_ids, user_id=user.pk), order_ids, committed or {}, user_id=user.pk
        ).items()
        if number
    }


def test_an_event_is_pending_then_published_then_notified(user: User, placed: Callable[[], Change]) -> None:
    change = placed()
    order = change.order
    assert figures(user, order.pk) == {"orders": 1, "pending": 1, "underWay": 1}
    publish(change)
    assert figures(user, order.pk) == {"orders": 1, "published": 1, "underWay": 1}
    notify(change)
    assert figures(user, order.pk, committed={1: 8}) == {"orders": 1, "published": 1, "notifications": 1}


def test_the_page_gets_times_and_position(user: User, placed: Callable[[], Change]) -> None:
    change = placed()
    publish(change, partition=2, offset=4711)
    (fields,) = map(as_json, follow([change.order.pk], user_id=user.pk))
    row = OutboxEvent.objects.get()
    assert row.published_at
    assert fields == {
        "orderId": change.order.pk,
        "sequence": 1,
        "recordedAt": rfc3339(row.recorded_at),
        "publishedAt": rfc3339(row.published_at),
        "path": "relay",
        "partition": 2,
        "offset": 4711,
        "notifiedAt": None,
        "isDead": False,
    }


def test_an_event_that_the_group_passed_is_lost(user: User, placed: Callable[[], Change]) -> None:
    change = placed()
    publish(change, partition=1, offset=7)
    for committed, lost in (({}, 0), ({0: 100}, 0), ({1: 7}, 0), ({1: 8}, 1)):
        assert figures(user, change.order.pk, committed=committed).get("lost", 0) == lost
    notify(change)
    assert "lost" not in figures(user, change.order.pk, committed={1: 8})


def test_a_change_that_was_never_recorded_is_lost(user: User, placed: Callable[[], Change]) -> None:
    change = placed()
    OutboxEvent.objects.all().delete()
    assert figures(user, change.order.pk) == {"orders": 1, "lost": 1}


def test_an_answered_order_without_a_row_is_lost(user: User, placed: Callable[[], Change]) -> None:
    order = placed().order
    assert figures(user, order.pk, order.pk + 1)["lost"] == 1


def test_a_second_notification_of_one_change_is_doubled(user: User, placed: Callable[[], Change]) -> None:
    change = placed()
    publish(change)
    notify(change)
    notify(change, event_id=uuid4())
    assert figures(user, change.order.pk)["doubled"] == 1


@pytest.mark.parametrize("state", [DeadLetter.State.OPEN, DeadLetter.State.DISMISSED])
def test_a_dead_letter_is_neither_lost_nor_under_way(user: User, placed: Callable[[], Change], state: str) -> None:
    change = placed()
    publish(change)
    make_dead_letter(change)
    DeadLetter.objects.update(state=state)
    assert figures(user, change.order.pk, committed={1: 8}) == {"orders": 1, "published": 1, "dead": 1}


@pytest.mark.parametrize(
    "other", [{"user_id": 10**9}, {"order_id": 10**9}, {"type": "ORDER_PAID"}, {"event_id": uuid4(), "user_id": 10**9}]
)
def test_a_forged_notification_hides_no_loss(user: User, placed: Callable[[], Change], other: dict[str, Any]) -> None:
    change = placed()
    publish(change)
    notify(change, **other)
    assert figures(user, change.order.pk, committed={1: 8})["lost"] == 1
    (journey,) = follow([change.order.pk], user_id=user.pk)
    assert journey.notified_at is None


@pytest.mark.parametrize("other", [{"user_id": 10**9}, {"order_id": 10**9}, {"user_id": 10**9, "type": "ORDER_PAID"}])
def test_a_notification_of_another_user_or_order_doubles_nothing(
    user: User, placed: Callable[[], Change], other: dict[str, Any]
) -> None:
    change = placed()
    publish(change)
    notify(change)
    notify(change, event_id=uuid4(), **other)
    assert figures(user, change.order.pk) == {"orders": 1, "published": 1, "notifications": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"order_id": 10**9},
        {"event_type": "ORDER_PAID"},
        {"event_id": uuid4()},
        {"event_id": uuid4(), "headers": "its own"},
        {"group": "audit"},
    ],
)
def test_a_letter_of_another_event_or_group_hides_no_loss(
    user: User, placed: Callable[[], Change], other: dict[str, Any]
) -> None:
    change = placed()
    publish(change)
    headers = unpack(change.event.headers) if "headers" in other else []
    make_dead_letter(change, **{**other, "headers": headers})
    assert figures(user, change.order.pk, committed={1: 8}) == {"orders": 1, "published": 1, "lost": 1}


def test_each_change_of_an_order_has_a_journey(user: User, placed: Callable[[], Change]) -> None:
    change = placed()
    publish(change)
    notify(change)
    pay_order(order_id=change.order.pk)
    assert [one.sequence for one in follow([change.order.pk], user_id=user.pk)] == [1, 2]
    assert figures(user, change.order.pk)["underWay"] == 1


@pytest.mark.parametrize(
    ("change", "events"),
    [
        ({"status": "PAID"}, 1),
        ({"status": "CANCELLED"}, 1),
        ({"last_sequence": 0}, 1),
        ({"last_sequence": 7}, 1),
        ({"status": "PENDING", "last_sequence": 2}, 2),
    ],
    ids=str,
)
def test_a_strange_order_has_the_events_of_its_rows(
    user: User, placed: Callable[[], Change], change: dict[str, Any], events: int
) -> None:
    strange, other = placed(), placed()
    if events == 2:
        pay_order(order_id=strange.order.pk)
    publish(strange)
    notify(strange)
    Order.objects.filter(pk=strange.order.pk).update(**change)
    followed = [(one.order_id, one.sequence) for one in follow([strange.order.pk, other.order.pk], user_id=user.pk)]
    assert followed == [*((strange.order.pk, n) for n in range(1, events + 1)), (other.order.pk, 1)]
    assert figures(user, strange.order.pk, other.order.pk) == {
        "orders": 2,
        "pending": events,
        "published": 1,
        "notifications": 1,
        "underWay": events,
    }


def test_strange_orders_without_rows_have_no_events(user: User, placed: Callable[[], Change]) -> None:
    orders = [placed().order.pk for _ in range(3)]
    Order.objects.update(status="PAID")
    OutboxEvent.objects.all().delete()
    assert follow(orders, user_id=user.pk) == []


def test_another_users_orders_are_not_followed(user: User, placed: Callable[[], Change]) -> None:
    assert follow([placed().order.pk], user_id=UserFactory.create().pk) == []


def test_more_orders_take_no_more_queries(
    user: User, placed: Callable[[], Change], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in (1, 8):
        orders = [placed().order.pk for _ in range(number)]
        with django_assert_num_queries(5):
            count(follow(orders, user_id=user.pk), orders, {}, user_id=user.pk)


@pytest.mark.parametrize("hours", [0, 2, -2])
def test_the_recorded_time_is_the_databases(
    user: User, placed: Callable[[], Change], set_clock: SetClock, hours: int
) -> None:
    set_clock(timedelta(hours=hours))
    change = placed()
    publish(change)
    (fields,) = map(as_json, follow([change.order.pk], user_id=user.pk))
    row = OutboxEvent.objects.get()
    assert fields["recordedAt"] == rfc3339(row.recorded_at)
    # One clock sets both times, so that no event is published before it was recorded.
    assert fields["recordedAt"] <= fields["publishedAt"]


def test_a_moved_event_is_followed_as_before(placed: Callable[[], Change], user: User) -> None:
    change = placed()
    publish(change)
    before = follow([change.order.pk], user_id=user.pk)
    assert move_to_history([OutboxEvent.objects.get().pk]) == 1
    assert follow([change.order.pk], user_id=user.pk) == before
    assert before[0].publication
