"""Reconcile finds lost changes and events and sends them again. It ignores events that are only late."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.operations import reconcile as reconciling
from commerce.operations.prune import prune
from conftest import Topics
from events.consuming.dead_letters import record_dead_letter
from events.consuming.replay import replay
from events.kafka import Consumer
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.headers import unpack
from events.wire.messages import Message
from events.wire.timestamps import now
from notifications.subscriptions import NOTIFICATIONS, notify
from orders.events import decode
from orders.history import maintenance
from orders.models import Order
from orders.services import Line, pay_order, place_order
from testkit.factories import kafka_record
from testkit.kafka_client import produce
from testkit.waiting import wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("notifications_alone")]

Reconcile = Callable[..., str]


@pytest.fixture
def group() -> str:
    return NOTIFICATIONS.group


@pytest.fixture
def reconcile(topics: Topics, group: str, capsys: pytest.CaptureFixture[str]) -> Reconcile:
    """Return a function that runs `reconcile_events` and returns what the command prints.

    If the command fails, the function appends ` and 1`, the exit code. With `read=n`, the group first reads n records
    and commits their offsets.
    """

    def run(*, repair: bool = False, read: int = 0) -> str:
        if read:
            consumer = Consumer(topic=topics.order_events, group=group, batch_size=1)
            for _ in range(read):
                consumer.commit(wait_until(lambda: consumer.poll(timeout=1)))
            consumer.close()
        try:
            call_command("reconcile_events", group=group, repair=repair)
        except CommandError:
            return capsys.readouterr().out.strip() + " and 1"
        return capsys.readouterr().out.strip()

    return run


@pytest.fixture
def event(user: User, topics: Topics) -> Message:
    return place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).event


def publish(event: Message, *, offset: int = 0) -> None:
    """Mark the event's outbox row as published at this offset of partition 0."""
    OutboxEvent.objects.filter(event_id=event.event_id).update(
        published_at=now(), published_path="fast", published_partition=0, published_offset=offset
    )


def test_a_change_whose_outbox_row_got_lost_is_recorded_again(reconcile: Reconcile, event: Message) -> None:
    OutboxEvent.objects.all().delete()
    assert reconcile() == "missing 1, repaired 0 and 1"
    assert reconcile(repair=True) == "missing 1, repaired 1"
    again = OutboxEvent.objects.get()
    assert (again.event_id, again.stream, again.sequence) == (event.event_id, event.stream, event.sequence)
    assert reconcile() == "missing 0, repaired 0"


def test_an_unknown_history_is_named_and_others_are_repaired(
    reconcile: Reconcile, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = [place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order for _ in range(3)]
    OutboxEvent.objects.all().delete()
    Order.objects.filter(pk=orders[1].pk).update(status="PAID", last_sequence=4)
    for repair, expected in ((False, "missing 3, repaired 0"), (True, "missing 3, repaired 2")):
        with pytest.raises(CommandError, match=r"with --repair" if not repair else "cannot be repaired"):
            call_command("reconcile_events", group="g", repair=repair)
        said = capsys.readouterr()
        assert said.out.strip() == expected
        assert said.err.count("\n") == 1
        assert f"Order {orders[1].pk} is PAID with 4 events" in said.err
    assert set(OutboxEvent.objects.values_list("stream", flat=True)) == {orders[0].stream, orders[2].stream}
    with pytest.raises(CommandError, match="cannot be repaired"):
        call_command("reconcile_events", group="g")


@pytest.mark.parametrize(
    "change",
    [
        {"status": "PAID"},
        {"status": "PENDING", "last_sequence": 3},
        {"status": "CANCELLED"},
        {"last_sequence": 9},
        {"event_ids": "those of another order"},
        {"event_ids": "the same one twice", "status": "PAID", "last_sequence": 2},
    ],
    ids=str,
)
def test_a_strange_order_is_named_and_others_are_repaired(
    reconcile: Reconcile, user: User, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    kept, strange, lost = [place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("1.00"))]).order for _ in range(3)]
    ids = {"those of another order": kept.event_ids, "the same one twice": [uuid4()] * 2}
    Order.objects.filter(pk=strange.pk).update(**change | {k: ids[v] for k, v in change.items() if v in ids})
    OutboxEvent.objects.exclude(stream=kept.stream).delete()
    with pytest.raises(CommandError, match="the orders named above cannot be repaired"):
        call_command("reconcile_events", group="g", repair=True)
    said = capsys.readouterr()
    assert said.out.strip().endswith(", repaired 1")
    assert said.err.count("\n") == 1
    assert re.search(rf"\b[Oo]rder {strange.pk}\b", said.err)
    assert set(OutboxEvent.objects.values_list("stream", flat=True)) == {kept.stream, lost.stream}


@pytest.mark.parametrize("change", [{"status": "PAID"}, {"status": "PENDING", "last_sequence": 1}, None], ids=str)
def test_an_order_that_changes_during_a_repair_is_refused(
    user: User, topics: Topics, change: dict[str, Any] | None
) -> None:
    strange, lost = [place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("1.00"))]).order for _ in range(2)]
    pay_order(order_id=strange.pk)
    OutboxEvent.objects.all().delete()
    steps = [*reconciling.find_missing([replace(NOTIFICATIONS, group="g")])]
    strange_id = strange.pk
    if change is None:
        with maintenance():
            strange.items.all().delete()
        strange.delete()
    else:
        Order.objects.filter(pk=strange.pk).update(**{"last_sequence": 1, **change})
    repaired = [reconciling.repair(step) for step in steps]
    assert sum(one.events for one in repaired) == 1
    assert [order_id for one in repaired for order_id in one.refused] == [strange_id]
    assert OutboxEvent.objects.get().stream == lost.stream


def test_an_unknown_history_with_all_its_rows_is_not_missing(reconcile: Reconcile, event: Message) -> None:
    Order.objects.update(status="PAID")
    assert reconcile() == "missing 0, repaired 0"


def test_the_timeline_of_an_unknown_history_shows_its_rows(api: APIClient, event: Message) -> None:
    Order.objects.update(status="PAID")
    shown = api.get(f"/api/orders/{Order.objects.get().pk}/events").json()
    assert [one["eventId"] for one in shown] == [str(event.event_id)]


def test_a_change_with_a_receipt_needs_no_row(reconcile: Reconcile, event: Message) -> None:
    notify([decode(bytes(event.value))])
    OutboxEvent.objects.all().delete()
    assert reconcile() == "missing 0, repaired 0"


def test_an_event_that_is_not_read_yet_is_not_missing(reconcile: Reconcile, event: Message, topics: Topics) -> None:
    produce(topics.order_events, bytes(event.value), partition=0)
    publish(event)
    assert reconcile() == "missing 0, repaired 0"


def test_a_read_but_unhandled_event_is_sent_again(reconcile: Reconcile, event: Message, topics: Topics) -> None:
    produce(topics.order_events, bytes(event.value), partition=0)
    publish(event)
    assert reconcile(read=1) == "missing 1, repaired 0 and 1"
    assert reconcile(repair=True) == "missing 1, repaired 1"
    assert OutboxEvent.objects.pending().get().event_id == event.event_id


def test_an_event_of_a_recreated_topic_is_sent_again(reconcile: Reconcile, event: Message) -> None:
    publish(event, offset=7)
    assert reconcile(repair=True) == "missing 1, repaired 1"


@pytest.mark.parametrize("handled", ["notified", "dead"])
def test_an_event_that_was_handled_is_not_missing(
    reconcile: Reconcile, event: Message, group: str, handled: str
) -> None:
    publish(event, offset=7)
    if handled == "notified":
        notify([decode(bytes(event.value))])
    else:
        make_dead_letter(event, group=group, state="open")
    assert reconcile() == "missing 0, repaired 0"


@pytest.mark.parametrize("state", ["open", "replayed", "dismissed"])
@pytest.mark.parametrize("is_row_there", [True, False])
def test_a_letter_of_an_earlier_release_counts(
    reconcile: Reconcile, event: Message, group: str, state: str, is_row_there: bool
) -> None:
    """During a rollout, consumers of an earlier release record dead letters without `subject_id`."""
    publish(event, offset=7)
    make_dead_letter(event, group=group, state=state)
    DeadLetter.objects.update(subject_id=None)
    if not is_row_there:
        OutboxEvent.objects.filter(event_id=event.event_id).delete()
    assert reconcile() == "missing 0, repaired 0"


def test_another_messages_letter_at_its_position_hides_nothing(
    reconcile: Reconcile, event: Message, settings: Settings
) -> None:
    """Offsets restart when a topic is recreated, so an older dead letter may have the position of a new event."""
    garbage = kafka_record(b"garbage", topic=settings.ORDER_EVENTS_TOPIC, offset=7)
    record_dead_letter(record=garbage, error=Poison("no event"), group=NOTIFICATIONS.group)
    publish(event, offset=7)
    assert reconcile() == "missing 1, repaired 0 and 1"


def make_dead_letter(event: Message, *, group: str, state: str) -> DeadLetter:
    record = kafka_record(bytes(event.value), topic=event.topic, headers=unpack(event.headers))
    record_dead_letter(record=record, error=Poison("no event"), group=group)
    DeadLetter.objects.update(state=state)
    return DeadLetter.objects.get()


@pytest.mark.parametrize("handled", ["notified", "replayed", "dismissed"])
def test_a_change_whose_row_was_pruned_is_not_missing(
    reconcile: Reconcile, event: Message, group: str, handled: str
) -> None:
    publish(event, offset=7)
    if handled == "notified":
        notify([decode(bytes(event.value))])
    else:
        make_dead_letter(event, group=group, state=handled)
    assert list(prune(published_before=now() + timedelta(days=1))) == [1]
    assert not OutboxEvent.objects.filter(event_id=event.event_id).exists()
    assert reconcile(repair=True) == "missing 0, repaired 0"
    assert not OutboxEvent.objects.filter(event_id=event.event_id).exists()


def test_a_lost_row_is_found_among_many_pruned_ones(
    reconcile: Reconcile, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commerce.operations.reconcile.BATCH_ORDERS", 2)
    events = []
    for _ in range(5):
        placed = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
        events += [placed.event, pay_order(order_id=placed.order.pk).event]
    notify([decode(bytes(event.value)) for event in events if event not in (events[0], events[7])])
    OutboxEvent.objects.all().delete()
    assert reconcile(repair=True) == "missing 2, repaired 2"
    assert set(OutboxEvent.objects.values_list("event_id", flat=True)) == {events[0].event_id, events[7].event_id}


def test_new_orders_do_not_prolong_the_search(
    reconcile: Reconcile, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commerce.operations.reconcile.BATCH_ORDERS", 1)
    calls: list[int] = []

    def without_row(first: int, last: int) -> list[tuple[int, int]]:
        assert not calls
        calls.append(first)
        place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
        return []

    monkeypatch.setattr("commerce.operations.reconcile._without_row", without_row)
    place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
    reconcile()
    assert calls


@pytest.mark.parametrize("outcome", ["handled", "failed again", "lost"])
def test_a_replay_is_never_missing(
    reconcile: Reconcile, event: Message, topics: Topics, group: str, outcome: str
) -> None:
    """Reconciling skips replays, because no group stores their ids.

    If a replay is lost, its dead letter stays open, so operators still see it.
    """
    publish(event)
    produce(topics.order_events, bytes(event.value), partition=0)
    letter = make_dead_letter(event, group=group, state="open")
    replay(letter_id=letter.pk)
    row = letter.replays.get()
    publish(row, offset=1)
    produce(topics.order_events, bytes(row.value), headers=unpack(row.headers), partition=0)
    if outcome == "handled":
        notify([decode(bytes(event.value))])
        DeadLetter.objects.update(state="replayed")
    elif outcome == "lost":
        publish(row, offset=77)
    assert reconcile(read=2) == "missing 0, repaired 0"
    assert reconcile(repair=True) == "missing 0, repaired 0"
    assert not OutboxEvent.objects.pending().filter(topic=topics.order_events).exists()


@pytest.mark.parametrize(("state", "expected"), [("open", "DEAD"), ("dismissed", "PUBLISHED")])
def test_the_timeline_shows_an_open_dead_letter(
    api: APIClient, event: Message, settings: Settings, state: str, expected: str
) -> None:
    publish(event)
    make_dead_letter(event, group=settings.NOTIFICATION_CONSUMER_GROUP, state=state)
    path = f"/api/orders/{Order.objects.get().pk}/events"
    assert [one["state"] for one in api.get(path).json()] == [expected]
    notify([decode(bytes(event.value))])
    assert [one["state"] for one in api.get(path).json()] == ["NOTIFIED"]
