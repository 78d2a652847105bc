"""The pipeline page in admin: its figures, and that it never waits long for Kafka."""

import html
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.models import LagReading
from commerce.operations import figures, lag_history, pipeline
from conftest import SetClock, Topics
from events.consuming.dead_letters import record_dead_letter
from events.database_clock import database_now
from events.models import DeadLetter, OutboxEvent
from events.observing.readings import DEFAULT_WAIT_S, Reading
from events.subscriptions import subscriptions
from events.troubles import Poison
from events.wire.timestamps import now
from notifications.models import EmailDelivery
from notifications.subscriptions import NOTIFICATIONS
from orders.services import Line, place_order
from payments.models import PaymentCommand
from sales.subscriptions import SALES
from testkit.apache_kafka import ApacheKafka
from testkit.factories import (
    EmailDeliveryFactory,
    NotificationFactory,
    OutboxEventFactory,
    kafka_record,
    poison_that_names,
)
from testkit.kafka_client import Outgoing, produce_all
from testkit.servers import Broker
from testkit.subscriptions import read_and_commit

pytestmark = pytest.mark.django_db

STATE = "/admin/pipeline/state"


@pytest.fixture(autouse=True)
def _new_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "kafka", Reading("the groups", figures._read_groups))


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
    groups = [one for one in state(admin_client)["groups"] if one["topic"] == topics.order_events]
    assert [one["group"] for one in groups] == [NOTIFICATIONS.group, SALES.group]
    for group in groups:
        partitions = group["partitions"]
        assert [(one["partition"], one["end_offset"]) for one in partitions] == [(0, 0), (1, 2), (2, 0)]


def test_it_shows_pending_rows_and_open_letters(admin_client: Client, settings: Settings) -> None:
    OutboxEventFactory.create(recorded_at=now() - timedelta(seconds=90))
    OutboxEventFactory.create(parked_at=now())
    for group in (settings.NOTIFICATION_CONSUMER_GROUP, "audit"):
        record_dead_letter(record=kafka_record(b"garbage"), error=Poison("no event"), group=group)
    cards = state(admin_client)["cards"]
    # Two of the pending rows are copies of the dead letters.
    assert {name: card["figure"] for name, card in cards.items() if name != "lag"} == {
        "pending": "3",
        "parked": "1",
        "letters": "1",
        "emails": "0",
        "failed_emails": "0",
        "commands": "0",
        "stuck": "0",
    }
    assert re.fullmatch(r"oldest for 9\d s", cards["pending"]["note"])


@pytest.mark.parametrize("hours", [2, -2])
def test_the_age_and_the_minutes_are_by_the_databases_clock(
    admin_client: Client, set_clock: SetClock, hours: int
) -> None:
    set_clock(timedelta(hours=-hours))
    OutboxEventFactory.create(recorded_at=database_now() - timedelta(seconds=90))
    OutboxEventFactory.create(published_at=database_now(), published_partition=0, published_offset=1)
    set_clock(timedelta(hours=hours))
    shown = state(admin_client)
    assert re.fullmatch(r"oldest for (9|1[0-4])\d s", shown["cards"]["pending"]["note"])
    assert sum(one["published"] for one in shown["minutes"]) == 1


def test_it_counts_what_was_published_and_handled_in_each_minute(admin_client: Client) -> None:
    published = {"published_path": "fast", "published_partition": 0, "published_offset": 1}
    OutboxEventFactory.create_batch(2, published_at=now() - timedelta(minutes=3), **published)
    OutboxEventFactory.create(published_at=now() - timedelta(hours=1), **published)
    NotificationFactory.create(created_at=now() - timedelta(minutes=3))
    minutes = state(admin_client)["minutes"]
    assert len(minutes) == figures.WINDOW_MINUTES
    assert sum(one["published"] for one in minutes) == 2
    (handled,) = [one["handled"] for one in minutes if one["published"] == 2]
    assert {group: count for group, count in handled.items() if count} == {NOTIFICATIONS.group: 1}


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


@pytest.mark.parametrize("address", ["/admin/pipeline/", "/admin/"])
def test_the_page_itself_does_not_query_kafka(admin_client: Client, silent_kafka: None, address: str) -> None:
    started = time.monotonic()
    assert admin_client.get(address).status_code == 200
    assert time.monotonic() - started < 1.5


def test_the_page_requires_the_permissions_for_its_rows(client: Client) -> None:
    client.force_login(User.objects.create_user("viewer", is_staff=True))
    assert client.get("/admin/pipeline/").status_code == 403
    assert client.get(STATE).status_code == 403


def test_a_healthy_pipeline_is_well(admin_client: Client, topics: Topics) -> None:
    shown = state(admin_client)
    assert shown["verdict"] == {"level": "ok", "sentence": "All is well.", "others": [], "runbook": None}
    assert {card["level"] for card in shown["cards"].values()} == {"ok"}


def test_an_unreachable_kafka_is_the_verdict(admin_client: Client, settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    OutboxEventFactory.create_batch(2, recorded_at=now() - timedelta(seconds=14))
    shown = state(admin_client)
    assert shown["verdict"] == {
        "level": "critical",
        "sentence": "Kafka does not answer; orders are accepted, and their events wait in the outbox.",
        "others": ["2 events wait for Kafka, the oldest for 14 s."],
        "runbook": "/admin/docs/operations.md#kafka-is-away",
    }
    assert {name: card["level"] for name, card in shown["cards"].items()} == {
        "lag": "critical",
        "pending": "warning",
        "parked": "ok",
        "letters": "ok",
        "emails": "ok",
        "failed_emails": "ok",
        "commands": "ok",
        "stuck": "ok",
    }
    assert shown["cards"]["lag"]["figure"] == "–"


def test_unread_messages_are_told_with_their_age(
    admin_client: Client, topics: Topics, broker: Broker, set_clock: SetClock
) -> None:
    produce_all(topics.order_events, [Outgoing(b"{}", partition=0)] * 3)
    read_and_commit(topics.order_events, NOTIFICATIONS.group, 1)
    set_clock(timedelta(seconds=30))
    shown = state(admin_client)
    # The embedded broker does not list the members, so that their number is not known there.
    if isinstance(broker, ApacheKafka):
        sentence, level = rf"{NOTIFICATIONS.group}: No consumer is running; 2 messages wait\.", "critical"
    else:
        sentence, level = rf"{NOTIFICATIONS.group}: Nothing was handled for 3\d s; 2 messages wait\.", "warning"
    assert re.fullmatch(sentence, shown["verdict"]["sentence"])
    assert shown["verdict"]["runbook"] == "/admin/docs/operations.md#lag-grows"
    card = shown["cards"]["lag"]
    assert (card["figure"], card["level"]) == ("2", level)
    assert re.fullmatch(r"oldest for 3\d s", card["note"])


def test_parked_messages_worry_for_fifteen_minutes_only(admin_client: Client, topics: Topics) -> None:
    OutboxEventFactory.create(parked_at=now() - timedelta(minutes=16))
    assert state(admin_client)["cards"]["parked"] == {"figure": "1", "level": "ok", "note": ""}
    OutboxEventFactory.create(parked_at=now() - timedelta(minutes=14))
    assert state(admin_client)["cards"]["parked"] == {"figure": "2", "level": "warning", "note": ""}


def test_it_shows_pending_and_failed_mails(admin_client: Client, topics: Topics) -> None:
    EmailDeliveryFactory.create_batch(2, created_at=now() - timedelta(minutes=50))
    EmailDeliveryFactory.create(state="failed", finished_at=now() - timedelta(minutes=16))
    EmailDeliveryFactory.create(state="done")
    cards = state(admin_client)["cards"]
    assert cards["emails"] == {"figure": "2", "level": "ok", "note": "oldest for 50 min"}
    assert cards["failed_emails"] == {"figure": "1", "level": "ok", "note": ""}
    EmailDeliveryFactory.create(created_at=now() - timedelta(minutes=61))
    EmailDeliveryFactory.create(state="failed", finished_at=now() - timedelta(minutes=14))
    cards = state(admin_client)["cards"]
    assert cards["emails"] == {"figure": "3", "level": "warning", "note": "oldest for 61 min"}
    assert cards["failed_emails"] == {"figure": "2", "level": "warning", "note": ""}


def test_it_shows_the_work_of_each_kind(admin_client: Client) -> None:
    def command(**changes: Any) -> None:
        """Record a payment command that failed, unless `changes` say otherwise."""
        ended = {"state": "failed", "finished_at": now()}
        members = {"command_id": uuid4(), "command_type": "CHARGE_PAYMENT", "reference": 7, "value": b"{}"}
        PaymentCommand.objects.create(**(members | ended | changes))

    command()
    waiting = {"state": "pending", "finished_at": None}
    command(**waiting, created_at=now() - timedelta(seconds=400), due_at=now() - timedelta(seconds=90))
    command(**waiting, created_at=now(), due_at=now() + timedelta(minutes=3))
    shown = state(admin_client)
    work = {one.pop("kind"): one for one in shown["work"]}
    assert list(work) == ["email", "fulfilment_deadlines", "payments", "shipping"]
    overdue = work["payments"].pop("overdue")
    assert re.fullmatch(r"9\d s", overdue)
    assert work["payments"] == {
        "rows": "/admin/payments/paymentcommand/",
        "pending": "2",
        "oldest": "6 min",
        "failed": "1",
    }
    assert work["fulfilment_deadlines"] == {"rows": "", "pending": "0", "oldest": "", "overdue": "", "failed": "0"}
    assert shown["cards"]["commands"] == {"figure": "2", "level": "critical", "note": "oldest for 6 min"}


def test_each_card_links_to_its_rows_and_the_runbook(admin_client: Client) -> None:
    record_dead_letter(record=kafka_record(b"garbage"), error=Poison("no event"), group=NOTIFICATIONS.group)
    runbook = admin_client.get("/admin/docs/operations.md").content.decode()
    for card in admin_client.get("/admin/pipeline/").context["cards"]:
        assert admin_client.get(card["rows"]).status_code == 200, card
        page, anchor = card["runbook"].split("#")
        assert page == "/admin/docs/operations.md"
        assert f'id="{anchor}"' in runbook
    (letters,) = [card for card in pipeline.summary()["cards"] if card["name"] == "letters"]
    assert admin_client.get(letters["rows"]).context["cl"].result_count == 1


# --- The history of the lag ---------------------------------------------------------------------


def test_the_history_has_the_lag_of_past_slots(admin_client: Client, topics: Topics) -> None:
    lag_history.record()
    recorded = LagReading.objects.get()
    assert recorded.lag == {one.group: 0 for one in subscriptions()}
    LagReading.objects.create(slot=recorded.slot - timedelta(minutes=5), lag={NOTIFICATIONS.group: 50})
    shown = state(admin_client)
    values = shown["lag"]["groups"][NOTIFICATIONS.group]
    assert len(values) == shown["lag"]["slots"] == lag_history.WINDOW_S // lag_history.SLOT_S + 1
    assert [value for value in values if value is not None] == [50, 0]
    text = f"Highest: 50 at {LagReading.objects.earliest('slot').slot:%H:%M:%S} UTC. Last: 0."
    assert shown["texts"]["lag"] == text


@pytest.mark.parametrize("kafka", ["refusing", "silent"])
def test_a_slot_without_kafka_is_a_gap(
    admin_client: Client, settings: Settings, request: pytest.FixtureRequest, kafka: str
) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    if kafka == "silent":
        request.getfixturevalue("silent_kafka")
    lag_history.record()
    slot = LagReading.objects.get().slot
    LagReading.objects.create(slot=slot - timedelta(seconds=lag_history.SLOT_S), lag={NOTIFICATIONS.group: 7})
    values = state(admin_client)["lag"]["groups"][NOTIFICATIONS.group]
    at = values.index(7)
    assert values[at + 1] is None


def test_a_history_without_readings_says_so(admin_client: Client, topics: Topics) -> None:
    shown = state(admin_client)
    assert (shown["lag"]["groups"], shown["texts"]["lag"]) == ({}, "There was no reading in this time.")


def test_old_and_future_slots_are_deleted(topics: Topics) -> None:
    for minutes in (-16, -14, 60):
        LagReading.objects.create(slot=database_now() + timedelta(minutes=minutes), lag={})
    lag_history.record()
    ages = [round((database_now() - one.slot).total_seconds() / 60) for one in LagReading.objects.order_by("slot")]
    assert ages == [14, 0]


def test_the_next_slot_is_read_in_its_middle(topics: Topics) -> None:
    pause_s = lag_history.record()
    into_slot_s = (database_now().timestamp() + pause_s) % lag_history.SLOT_S
    assert into_slot_s == pytest.approx(lag_history.SLOT_S / 2, abs=0.5)


@pytest.mark.django_db(transaction=True)
def test_many_workers_read_each_slot_once(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[None] = []
    monkeypatch.setattr(lag_history, "_read_lag", lambda: readings.append(None))

    def work() -> None:
        lag_history.record()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The threads may meet the boundary of two slots.
    assert len(readings) == LagReading.objects.count() <= 2


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
    (letter,) = DeadLetter.objects.all()
    pages = [
        f"/admin/events/outboxevent/{row.pk}/change/",
        f"/admin/notifications/notification/{notification.pk}/change/",
        f"/admin/events/deadletter/{letter.pk}/change/",
    ]
    for page in pages:
        assert page in text
        assert order_page in admin_client.get(page).content.decode()


def test_the_timeline_shows_the_mail_of_each_notification(admin_client: Client, api: APIClient, user: User) -> None:
    change = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
    order_page = f"/admin/orders/order/{change.order.pk}/change/"
    path = f"/api/orders/{change.order.pk}/events"
    notification = NotificationFactory.create(event_id=change.event.event_id, order_id=change.order.pk, user_id=user.pk)
    assert "data-email" not in admin_client.get(order_page).content.decode()
    before = api.get(path).json()
    error = "The mail server answered 550 <b>no</b>"
    delivery = EmailDeliveryFactory.create(notification=notification, state="failed", attempts=3, last_error=error)
    text = admin_client.get(order_page).content.decode()
    for part in ('data-email="failed"', "3 attempts", html.escape(error), "mina@example.com"):
        assert part in text
    email_page = f"/admin/notifications/emaildelivery/{delivery.pk}/change/"
    assert email_page in text
    assert order_page in admin_client.get(email_page).content.decode()
    EmailDelivery.objects.update(state="pending", finished_at=None, attempts=1, due_at="2031-01-30T10:15:30Z")
    text = admin_client.get(order_page).content.decode()
    for part in ('data-email="pending"', "1 attempt, next", "2031-01-30 10:15:30 UTC"):
        assert part in text
    assert api.get(path).json() == before


def test_a_longer_timeline_takes_no_more_queries(admin_client: Client, user: User) -> None:
    def queries(events: int) -> int:
        order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
        for sequence in range(2, events + 1):
            row = OutboxEventFactory.create(stream=order.stream, sequence=sequence)
            body = poison_that_names(event_id=row.event_id, order_id=order.pk, event_type=row.event_type)
            record = kafka_record(body, offset=row.pk)
            record_dead_letter(record=record, error=Poison("no event"), group=NOTIFICATIONS.group)
            notification = NotificationFactory.create(
                event_id=row.event_id, type=row.event_type, order_id=order.pk, user_id=user.pk
            )
            EmailDeliveryFactory.create(notification=notification)
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(f"/admin/orders/order/{order.pk}/change/").status_code == 200
        return len(captured)

    assert queries(2) == queries(8)
