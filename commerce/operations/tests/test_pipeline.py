"""The pipeline page in admin: its figures, and that it never waits long for Kafka."""

import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from commerce.operations import pipeline
from conftest import SetClock, Topics
from events.consuming.dead_letters import record_dead_letter
from events.database_clock import database_now
from events.models import OutboxEvent
from events.observing.readings import DEFAULT_WAIT_S, Reading
from events.troubles import Poison
from events.wire.timestamps import now
from notifications.subscriptions import NOTIFICATIONS
from orders.services import Line, place_order
from testkit.factories import NotificationFactory, OutboxEventFactory, kafka_record, poison_that_names
from testkit.kafka_client import Outgoing, produce_all

pytestmark = pytest.mark.django_db

STATE = "/admin/pipeline/state"


@pytest.fixture(autouse=True)
def _new_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "kafka", Reading("the groups", pipeline._read_groups))


@pytest.fixture
def silent_kafka(settings: Settings) -> Iterator[None]:
    """Configure a Kafka that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.KAFKA_BOOTSTRAP_SERVERS = [f"127.0.0.1:{server.getsockname()[1]}"]
        yield


def state(client: Client) -> Any:
    response = client.get(STATE)
    assert response.status_code == 200
    return response.json()


def test_it_shows_the_lag_of_groups_by_partition(admin_client: Client, topics: Topics) -> None:
    produce_all(topics.order_events, [Outgoing(b"{}", partition=1), Outgoing(b"{}", partition=1)])
    (group,) = state(admin_client)["groups"]
    assert (group["group"], group["topic"]) == (NOTIFICATIONS.group, topics.order_events)
    partitions = group["partitions"]
    assert [(one["partition"], one["end_offset"]) for one in partitions] == [(0, 0), (1, 2), (2, 0)]


def test_it_shows_pending_rows_and_open_letters(admin_client: Client, settings: Settings) -> None:
    OutboxEventFactory.create(recorded_at=now() - timedelta(seconds=90))
    OutboxEventFactory.create(parked_at=now())
    for group in (settings.NOTIFICATION_CONSUMER_GROUP, "audit"):
        record_dead_letter(record=kafka_record(b"garbage"), error=Poison("no event"), group=group)
    shown = state(admin_client)
    assert shown["outbox"]["pending"] == 3  # Two of them are copies of the dead letters.
    assert shown["outbox"]["oldestSeconds"] >= 90
    assert (shown["outbox"]["parked"], shown["deadLetters"]) == (1, 1)


@pytest.mark.parametrize("hours", [2, -2])
def test_the_age_and_the_minutes_are_by_the_databases_clock(
    admin_client: Client, set_clock: SetClock, hours: int
) -> None:
    set_clock(timedelta(hours=-hours))
    OutboxEventFactory.create(recorded_at=database_now() - timedelta(seconds=90))
    OutboxEventFactory.create(published_at=database_now(), published_partition=0, published_offset=1)
    set_clock(timedelta(hours=hours))
    shown = state(admin_client)
    assert 90 <= shown["outbox"]["oldestSeconds"] < 150
    assert sum(one["published"] for one in shown["minutes"]) == 1


def test_it_counts_what_was_published_and_handled_in_each_minute(admin_client: Client) -> None:
    published = {"published_path": "fast", "published_partition": 0, "published_offset": 1}
    OutboxEventFactory.create_batch(2, published_at=now() - timedelta(minutes=3), **published)
    OutboxEventFactory.create(published_at=now() - timedelta(hours=1), **published)
    NotificationFactory.create(created_at=now() - timedelta(minutes=3))
    minutes = state(admin_client)["minutes"]
    assert len(minutes) == pipeline.WINDOW_MINUTES
    assert sum(one["published"] for one in minutes) == 2
    assert [one["handled"] for one in minutes if one["published"] == 2] == [{NOTIFICATIONS.group: 1}]


def test_a_refusing_kafka_is_reported_at_once(admin_client: Client, settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    started = time.monotonic()
    assert state(admin_client)["kafka"] == "down"
    assert time.monotonic() - started < 1.5


def test_a_silent_kafka_does_not_block_the_page(admin_client: Client, silent_kafka: None) -> None:
    for _ in range(3):
        started = time.monotonic()
        assert state(admin_client)["kafka"] == "down"
        assert time.monotonic() - started < DEFAULT_WAIT_S + 1


def test_the_page_itself_does_not_query_kafka(admin_client: Client, silent_kafka: None) -> None:
    started = time.monotonic()
    assert admin_client.get("/admin/pipeline/").status_code == 200
    assert time.monotonic() - started < 1.5


def test_the_page_requires_the_permissions_for_its_rows(client: Client) -> None:
    client.force_login(User.objects.create_user("viewer", is_staff=True))
    assert client.get("/admin/pipeline/").status_code == 403
    assert client.get(STATE).status_code == 403


# --- An order's timeline ------------------------------------------------------------------------


def test_an_orders_page_links_to_each_event_and_back(admin_client: Client, user: User) -> None:
    change = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
    order, row = change.order, OutboxEvent.objects.get(event_id=change.event.event_id)
    OutboxEvent.objects.filter(pk=row.pk).update(
        published_at=now(), published_path="relay", published_partition=2, published_offset=4711
    )
    notification = NotificationFactory.create(event_id=row.event_id, order_id=order.pk, user_id=user.pk)
    record_dead_letter(
        record=kafka_record(bytes(row.value or b"")), error=Poison("no event"), group=NOTIFICATIONS.group
    )
    order_page = f"/admin/orders/order/{order.pk}/change/"
    text = admin_client.get(order_page).content.decode()
    assert "Relay, order-events[2]@4711" in text
    assert 'data-state="NOTIFIED"' in text
    (letter,) = pipeline.DeadLetter.objects.all()
    pages = [
        f"/admin/events/outboxevent/{row.pk}/change/",
        f"/admin/notifications/notification/{notification.pk}/change/",
        f"/admin/events/deadletter/{letter.pk}/change/",
    ]
    for page in pages:
        assert page in text
        assert order_page in admin_client.get(page).content.decode()


def test_a_longer_timeline_takes_no_more_queries(admin_client: Client, user: User) -> None:
    def queries(events: int) -> int:
        order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
        for sequence in range(2, events + 1):
            row = OutboxEventFactory.create(stream=order.stream, sequence=sequence)
            body = poison_that_names(event_id=row.event_id, order_id=order.pk, event_type=row.event_type)
            record = kafka_record(body, offset=row.pk)
            record_dead_letter(record=record, error=Poison("no event"), group=NOTIFICATIONS.group)
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(f"/admin/orders/order/{order.pk}/change/").status_code == 200
        return len(captured)

    assert queries(2) == queries(8)
