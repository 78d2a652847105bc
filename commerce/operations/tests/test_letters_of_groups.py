"""Each consumer group handles every event itself, so dead letters of another group do not affect notifications."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from rest_framework.test import APIClient

from commerce.admin_site.navigation import sidebar
from commerce.operations.prune import prune
from commerce.operations.reconcile import Missing
from events.consuming.dead_letters import dismiss, record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.timestamps import now
from notifications.subscriptions import NOTIFICATIONS
from notifications.subscriptions import notify as save
from orders.events import decode
from orders.models import Order
from orders.services import Line, place_order
from testkit.factories import kafka_record
from testkit.subscriptions import missing_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("notifications_alone")]

OURS = settings.NOTIFICATION_CONSUMER_GROUP
STATES = pytest.mark.parametrize("state", ["open", "replayed", "dismissed"])
OTHERS = pytest.mark.parametrize("others", [["audit"], ["audit", "stock"], [OURS + "-2"]], ids=",".join)


@pytest.fixture
def order(user: User) -> Order:
    """Return an order whose first event was published 40 days ago."""
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    OutboxEvent.objects.update(
        published_at=now() - timedelta(days=40), published_path="fast", published_partition=0, published_offset=7
    )
    return order


def make_dead_letter(order: Order, *groups: str, state: str = "open") -> None:
    """Record a dead letter of the order's event for each group."""
    value = bytes(OutboxEvent.objects.get(stream=order.stream).value or b"")
    for group in groups:
        record_dead_letter(record=kafka_record(value), error=Poison("no event"), group=group)
    DeadLetter.objects.filter(group__in=groups).update(state=state)


def state_of(api: APIClient, order: Order) -> str:
    (entry,) = api.get(f"/api/orders/{order.pk}/events").json()
    return entry["state"]


def notify(order: Order) -> None:
    save([decode(bytes(OutboxEvent.objects.get(stream=order.stream).value or b""))])


@OTHERS
@STATES
def test_the_timeline_shows_the_notifications_group(
    api: APIClient, order: Order, others: list[str], state: str
) -> None:
    make_dead_letter(order, *others, state=state)
    assert state_of(api, order) == "PUBLISHED"
    make_dead_letter(order, OURS)
    assert state_of(api, order) == "DEAD"
    notify(order)
    assert state_of(api, order) == "NOTIFIED"


@OTHERS
@STATES
def test_another_groups_letter_hides_no_loss(order: Order, others: list[str], state: str) -> None:
    make_dead_letter(order, *others, state=state)
    row = OutboxEvent.objects.get(stream=order.stream)
    assert missing_of(NOTIFICATIONS) == Missing(events={row.event_id})
    assert all(missing_of(replace(NOTIFICATIONS, group=group)) == Missing() for group in others)
    assert sum(prune(published_before=now())) == 0
    row.delete()
    assert missing_of(NOTIFICATIONS) == Missing(changes={(order.pk, 1)})
    assert all(missing_of(replace(NOTIFICATIONS, group=group)) == Missing() for group in others)


@pytest.mark.parametrize(("state", "pruned"), [("open", 0), ("replayed", 1), ("dismissed", 1)])
def test_our_letter_decides_whether_a_row_is_pruned(order: Order, state: str, pruned: int) -> None:
    make_dead_letter(order, "audit")
    make_dead_letter(order, OURS, state=state)
    assert sum(prune(published_before=now())) == pruned


@OTHERS
def test_admin_names_the_group_of_another_groups_letter(admin_client: Client, order: Order, others: list[str]) -> None:
    make_dead_letter(order, OURS, *others)
    page = admin_client.get(f"/admin/orders/order/{order.pk}/change/").content.decode()
    assert 'data-state="DEAD"' in page
    assert [f"of consumer group {group}<" in page for group in (OURS, *others)] == [False] + [True] * len(others)
    row = OutboxEvent.objects.get(stream=order.stream)
    page = admin_client.get(f"/admin/events/outboxevent/{row.pk}/change/").content.decode()
    assert [f"of consumer group {group}<" in page for group in (OURS, *others)] == [False] + [True] * len(others)


@OTHERS
def test_the_sidebar_counts_our_open_letters(
    rf: RequestFactory, admin_user: User, order: Order, others: list[str]
) -> None:
    request: Any = rf.get("/admin/")
    request.user = admin_user

    def badges() -> list[str]:
        return [item["badge"] for section in sidebar(request) for item in section["items"] if item["badge"]]

    make_dead_letter(order, *others)
    assert badges() == []
    make_dead_letter(order, OURS)
    assert badges() == ["1"]
    dismiss(letter_id=DeadLetter.objects.get(group=OURS).pk)
    assert badges() == []
