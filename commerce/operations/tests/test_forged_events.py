"""Forged messages with the id of a real event hide nothing from timeline, reconcile and prune."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from commerce.operations.prune import prune
from commerce.operations.reconcile import Missing, repair
from events.consuming.dead_letters import dismiss, record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.headers import unpack
from events.wire.timestamps import now, rfc3339
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS, notify
from orders.events import ORDER_CANCELLED, OrderEvent, decode, encode
from orders.models import Order
from orders.services import Line, pay_order, place_order
from testkit.factories import NotificationFactory, kafka_record, poison_that_names
from testkit.subscriptions import missing_of, process

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("notifications_alone")]

GROUP = settings.NOTIFICATION_CONSUMER_GROUP

OTHERS: dict[str, dict[str, Any]] = {
    "user": {"user_id": 10**9},
    "order": {"order_id": 10**9},
    "type": {"event_type": ORDER_CANCELLED},
    "all": {"user_id": 10**9, "order_id": 10**9, "event_type": ORDER_CANCELLED},
}
OTHER = pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)


@pytest.fixture
def order(user: User) -> Order:
    """Return a paid order. Its first event has become a notification, and its second event was lost."""
    placed = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
    paid = pay_order(order_id=placed.order.pk)
    notify([decode(placed.event.value)])
    publish_all()
    return paid.order


def publish_all() -> None:
    """Mark every outbox row as published 40 days ago, in partition 0 at offset 7."""
    OutboxEvent.objects.update(
        published_at=now() - timedelta(days=40), published_path="fast", published_partition=0, published_offset=7
    )


def row_of(order: Order) -> OutboxEvent:
    """Return the outbox row of the order's second event."""
    return OutboxEvent.objects.get(stream=order.stream, sequence=2)


def event_of(order: Order) -> OrderEvent:
    return decode(bytes(row_of(order).value or b""))


def make_dead_letter(value: bytes, **record: Any) -> DeadLetter:
    """Consume a message that becomes a dead letter, and return the letter."""
    known = set(DeadLetter.objects.values_list("pk", flat=True))
    consume(value, **record)
    return DeadLetter.objects.exclude(pk__in=known).get()


def consume(value: bytes, **record: Any) -> None:
    offset = 100 + DeadLetter.objects.count() + Notification.objects.count()
    process([kafka_record(value, offset=offset, **record)], NOTIFICATIONS)


def missing() -> Missing:
    return missing_of(NOTIFICATIONS)


def states(api: APIClient, order: Order) -> list[tuple[str, str]]:
    return [(entry["eventType"], entry["state"]) for entry in api.get(f"/api/orders/{order.pk}/events").json()]


def prune_all() -> int:
    return sum(prune(published_before=now()))


def forged_notification(order: Order, other: dict[str, Any]) -> None:
    event = msgspec.structs.replace(event_of(order), **other)
    NotificationFactory.create(
        event_id=event.event_id, order_id=event.order_id, user_id=event.user_id, type=event.event_type
    )


def forged_letter(order: Order, other: dict[str, Any]) -> None:
    event = msgspec.structs.replace(event_of(order), **other)
    make_dead_letter(poison_that_names(event_id=event.event_id, order_id=event.order_id, event_type=event.event_type))


def forged_headers(order: Order, other: dict[str, Any]) -> None:
    make_dead_letter(b"garbage", headers=unpack(row_of(order).headers))


def truncated(order: Order, other: dict[str, Any]) -> None:
    row = row_of(order)
    make_dead_letter(bytes(row.value or b"")[:-5], headers=unpack(row.headers))


FORGERIES: list[tuple[Callable[[Order, dict[str, Any]], None], dict[str, Any]]] = [
    *((forged_notification, other) for other in OTHERS.values()),
    *((forged_letter, OTHERS[name]) for name in ("order", "type", "all")),
    (forged_headers, {}),
    (truncated, {}),
]
FORGERY = pytest.mark.parametrize(
    ("forge", "other"), FORGERIES, ids=[f"{forge.__name__} {'-'.join(other)}" for forge, other in FORGERIES]
)


@FORGERY
@pytest.mark.parametrize("letters", ["open", "dismissed"])
def test_no_forgery_hides_a_lost_event(
    api: APIClient, order: Order, forge: Callable[..., None], other: dict[str, Any], letters: str
) -> None:
    event_id = row_of(order).event_id
    forge(order, other)
    if letters == "dismissed":
        for letter in DeadLetter.objects.all():
            dismiss(letter_id=letter.pk)
    assert missing() == Missing(changes=set(), events={event_id})
    assert states(api, order) == [("ORDER_CREATED", "NOTIFIED"), ("ORDER_PAID", "PUBLISHED")]
    assert prune_all() == 1
    assert row_of(order).event_id == event_id
    assert repair(missing()).events == 1
    assert OutboxEvent.objects.pending().exclude(event_type="DEAD_LETTER").get().event_id == event_id


@FORGERY
def test_no_forgery_hides_a_change_with_a_lost_row(
    api: APIClient, order: Order, forge: Callable[..., None], other: dict[str, Any]
) -> None:
    event_id = row_of(order).event_id
    forge(order, other)
    for letter in DeadLetter.objects.all():
        dismiss(letter_id=letter.pk)
    OutboxEvent.objects.filter(stream=order.stream).delete()
    assert missing() == Missing(changes={(order.pk, 2)}, events=set())
    assert states(api, order) == [("ORDER_CREATED", "NOTIFIED")]
    assert repair(missing()).events == 1
    assert row_of(order).event_id == event_id
    assert missing() == Missing(changes=set(), events=set())


@pytest.mark.parametrize("state", ["open", "dismissed"])
def test_a_letter_of_the_events_own_bytes_counts(api: APIClient, order: Order, state: str) -> None:
    row = row_of(order)
    headers = [("ce_id", b"aaaaaaaa-0c1e-4d6b-9a43-1f3a8a7f7c55"), ("ce_type", b"ORDER_CANCELLED")]
    record = kafka_record(bytes(row.value or b""), headers=headers)
    record_dead_letter(record=record, error=Poison("no event"), group=NOTIFICATIONS.group)
    if state == "dismissed":
        dismiss(letter_id=DeadLetter.objects.get().pk)
    assert missing() == Missing(changes=set(), events=set())
    assert states(api, order)[1] == ("ORDER_PAID", "DEAD" if state == "open" else "PUBLISHED")
    prune_all()
    assert OutboxEvent.objects.filter(pk=row.pk).exists() is (state == "open")
    OutboxEvent.objects.filter(stream=order.stream).delete()
    assert missing() == Missing(changes=set(), events=set())


@pytest.mark.parametrize("state", ["open", "dismissed"])
def test_a_forged_body_hides_no_event_that_has_a_row(order: Order, state: str) -> None:
    """A forged message can name the event's id, type and order. But it cannot have the same bytes as the event."""
    row, event = row_of(order), event_of(order)
    body = poison_that_names(event_id=event.event_id, order_id=order.pk, event_type=event.event_type)
    for value in (body, b" " + body, body[:-1] + b', "userId": 7}'):
        letter = make_dead_letter(value)
        if state == "dismissed":
            dismiss(letter_id=letter.pk)
    assert missing() == Missing(changes=set(), events={row.event_id})
    assert prune_all() == 1
    assert row_of(order).pk == row.pk


@OTHER
def test_an_id_computed_in_advance_suppresses_nothing(
    api: APIClient, user: User, order: Order, other: dict[str, Any]
) -> None:
    """An attacker computes the id of an event from public values, as earlier releases did."""
    fresh = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    guess = uuid5(NAMESPACE_URL, f"/orders/{fresh.pk}/{rfc3339(fresh.created_at)}/2")
    forged = {"event_id": guess, "order_id": fresh.pk} | other
    consume(encode(msgspec.structs.replace(event_of(order), **forged)))
    paid = pay_order(order_id=fresh.pk).event
    consume(paid.value or b"")
    assert Notification.objects.get(event_id=paid.event_id).user_id == user.pk
    assert states(api, fresh)[1] == ("ORDER_PAID", "NOTIFIED")
    assert not DeadLetter.objects.exists()


def as_an_earlier_release_recorded(order: Order) -> UUID:
    """Give both events of the order the ids that an earlier release computes, and return the second id."""
    ids = [uuid5(NAMESPACE_URL, f"/orders/{order.pk}/{rfc3339(order.created_at)}/{number}") for number in (1, 2)]
    Order.objects.filter(pk=order.pk).update(event_ids=None)
    for sequence, event_id in enumerate(ids, start=1):
        row = OutboxEvent.objects.get(stream=order.stream, sequence=sequence)
        Notification.objects.filter(event_id=row.event_id).update(event_id=event_id)
        row.value = encode(msgspec.structs.replace(decode(bytes(row.value or b"")), event_id=event_id))
        row.event_id = event_id
        row.save()
    return ids[1]


@OTHER
def test_an_old_orders_event_under_a_forged_id_is_never_silent(
    api: APIClient, order: Order, other: dict[str, Any]
) -> None:
    """An attacker can compute the id of an old event. A true event that follows its forgery becomes a dead letter."""
    event_id = as_an_earlier_release_recorded(order)
    true = event_of(order)
    consume(encode(msgspec.structs.replace(true, **other)))
    assert states(api, order)[1] == ("ORDER_PAID", "PUBLISHED")
    assert missing() == Missing(changes=set(), events={event_id})
    repair(missing())
    letter = make_dead_letter(encode(true))
    assert letter.error_class.endswith("EventIdConflict")
    assert states(api, order)[1] == ("ORDER_PAID", "DEAD")
    publish_all()
    prune_all()
    assert row_of(order).event_id == event_id
    # An operator can delete the forged notification and replay the letter.
    Notification.objects.filter(event_id=event_id).delete()
    consume(encode(true), headers=[("dead-letter-id", str(letter.pk).encode())])
    assert states(api, order)[1] == ("ORDER_PAID", "NOTIFIED")
    assert DeadLetter.objects.get().state == "replayed"


@OTHER
def test_a_forgery_after_the_true_event_changes_nothing(api: APIClient, order: Order, other: dict[str, Any]) -> None:
    true = event_of(order)
    consume(encode(true))
    letter = make_dead_letter(encode(msgspec.structs.replace(true, **other)))
    assert letter.error_class.endswith("EventIdConflict")
    assert states(api, order) == [("ORDER_CREATED", "NOTIFIED"), ("ORDER_PAID", "NOTIFIED")]
    assert missing() == Missing(changes=set(), events=set())
    assert prune_all() == 2
    assert missing() == Missing(changes=set(), events=set())
    assert states(api, order) == [("ORDER_CREATED", "NOTIFIED"), ("ORDER_PAID", "NOTIFIED")]


@pytest.mark.parametrize("pruned", [False, True])
def test_a_handled_old_order_is_not_missing(api: APIClient, order: Order, pruned: bool) -> None:
    as_an_earlier_release_recorded(order)
    consume(encode(event_of(order)))
    assert not pruned or prune_all() == 2
    assert missing() == Missing(changes=set(), events=set())
    assert states(api, order) == [("ORDER_CREATED", "NOTIFIED"), ("ORDER_PAID", "NOTIFIED")]


def test_an_old_orders_lost_event_is_sent_again_under_its_own_id(order: Order) -> None:
    event_id = as_an_earlier_release_recorded(order)
    row_of(order).delete()
    assert repair(missing()).events == 1
    assert row_of(order).event_id == event_id
