"""Prune removes old handled events from the outbox. Rows that still have to be sent or handled stay at any age."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.management.commands import prune_events
from commerce.operations import prune
from commerce.operations.timeline import timeline
from events.consuming.dead_letters import record_dead_letter
from events.consuming.replay import replay
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.timestamps import now, rfc3339
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS, notify
from orders.events import decode, encode
from orders.models import Order
from orders.services import Line, cancel_order, pay_order, place_order
from testkit.factories import (
    NotificationFactory,
    OrderEventFactory,
    OrderFactory,
    OutboxEventFactory,
    kafka_record,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("notifications_alone")]

GROUP = settings.NOTIFICATION_CONSUMER_GROUP


class Signalled:
    """A stand-in for `Shutdown`, whose `requested` returns False.

    With `at_second_call`, the second call of `requested` returns True, as after a signal between the two calls.
    """

    def __init__(self, *, at_second_call: bool = False) -> None:
        self.calls = 0
        self.at_second_call = at_second_call

    def requested(self) -> bool:
        self.calls += 1
        return self.at_second_call and self.calls == 2


Prune = Callable[..., str]


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prune:
    """Return a function that runs `manage.py prune_events` and returns its output."""
    monkeypatch.setattr(prune_events, "Shutdown", Signalled)

    def run(*arguments: str) -> str:
        call_command("prune_events", *arguments)
        return capsys.readouterr().out

    return run


def published(age: timedelta = timedelta(days=40), **row: Any) -> OutboxEvent:
    """Create an outbox row of an order's first event, which was published `age` ago."""
    order, event_id = OrderFactory.create(), uuid4()
    event = OrderEventFactory.build(event_id=event_id, order_id=order.pk, user_id=order.user_id)
    row = {"stream": order.stream, "sequence": 1, "event_id": event_id, "value": encode(event)} | row
    position = {"published_path": "fast", "published_partition": 0, "published_offset": 0}
    return OutboxEventFactory.create(published_at=now() - age, **position, **row)


def order_of(row: OutboxEvent) -> Order:
    return Order.objects.get(pk=(row.stream or "").removeprefix("order-"))


def notify_of(row: OutboxEvent, **changes: Any) -> None:
    order = order_of(row)
    fields = {"event_id": row.event_id, "order_id": order.pk, "user_id": order.user_id, "type": row.event_type}
    NotificationFactory.create(**fields | changes)


def publish_all() -> None:
    """Mark every outbox row as published 40 days ago."""
    OutboxEvent.objects.update(
        published_at=now() - timedelta(days=40), published_path="fast", published_partition=0, published_offset=0
    )


def make_dead_letter(row: OutboxEvent, *, state: str = "open", **record: Any) -> DeadLetter:
    """Record a dead letter of the event in `row`, and return it. Delete the letter's `-dlt` copy from the outbox.

    `record` has fields of the Kafka record, as `kafka_record` takes them.
    """
    message = kafka_record(bytes(row.value or b""), **record)
    recorded = record_dead_letter(record=message, error=Poison("no event"), group=NOTIFICATIONS.group)
    if recorded.copy:
        OutboxEvent.objects.get(event_id=recorded.copy.event_id).delete()
    letter = DeadLetter.objects.latest("pk")
    DeadLetter.objects.filter(pk=letter.pk).update(state=state)
    return letter


def test_the_row_of_a_notified_event_is_pruned(pruned: Prune) -> None:
    notify_of(published())
    assert pruned() == "pruned 1\n"
    assert not OutboxEvent.objects.exists()


@pytest.mark.parametrize("state", ["replayed", "dismissed"])
def test_the_row_of_a_closed_dead_letter_is_pruned(pruned: Prune, state: str) -> None:
    make_dead_letter(published(), state=state)
    assert pruned() == "pruned 1\n"


@pytest.mark.parametrize(("state", "printed"), [("open", 0), ("replayed", 1), ("dismissed", 1)])
def test_a_letter_of_an_earlier_release_counts_for_prune(pruned: Prune, state: str, printed: int) -> None:
    """During a rollout, consumers of an earlier release record dead letters without `subject_id`."""
    make_dead_letter(published(), state=state)
    DeadLetter.objects.update(subject_id=None)
    assert pruned() == f"pruned {printed}\n"


def test_the_row_of_an_event_with_an_open_dead_letter_stays(pruned: Prune) -> None:
    row = published()
    make_dead_letter(row)
    make_dead_letter(row, state="dismissed", offset=1)
    assert pruned() == "pruned 0\n"


def test_the_row_of_an_unhandled_event_stays(pruned: Prune) -> None:
    published()
    NotificationFactory.create()
    assert pruned() == "pruned 0\n"


def test_a_pending_row_of_any_age_stays(pruned: Prune) -> None:
    for topic in ("order-events", "order-events-dlt", "notification-events"):
        stream = OrderFactory.create().stream
        created_at = now() - timedelta(days=4000)
        notify_of(OutboxEventFactory.create(created_at=created_at, topic=topic, stream=stream, sequence=1))
    assert pruned() == "pruned 0\n"


def test_a_parked_row_stays(pruned: Prune) -> None:
    for topic in ("order-events", "order-events-dlt"):
        parked = {"parked_at": now() - timedelta(days=40), "parked_reason": "too large", "topic": topic}
        OutboxEventFactory.create(stream=OrderFactory.create().stream, sequence=1, **parked)
        # Two processes may have sent the row, with different results.
        published(**parked)
    for row in OutboxEvent.objects.all():
        notify_of(row)
    assert pruned() == "pruned 0\n"


@pytest.mark.parametrize("topic", ["order-events-dlt", "notification-events"])
def test_a_published_row_of_an_unread_topic_is_pruned(pruned: Prune, topic: str) -> None:
    published(topic=topic)
    assert pruned() == "pruned 1\n"


@pytest.mark.parametrize(("state", "printed"), [("open", "pruned 0\n"), ("replayed", "pruned 1\n")])
def test_the_row_of_a_replay_is_pruned_with_a_closed_letter(
    pruned: Prune, state: str, printed: str, settings: Settings
) -> None:
    for topic in (settings.ORDER_EVENTS_TOPIC, "another-topic"):
        letter = make_dead_letter(OutboxEventFactory.create(), topic=topic)
        OutboxEvent.objects.all().delete()
        replay(letter_id=letter.pk)
        publish_all()
        DeadLetter.objects.update(state=state)
        assert pruned() == printed
        OutboxEvent.objects.all().delete()


def test_a_replay_without_its_letter_is_pruned(pruned: Prune) -> None:
    letter = make_dead_letter(OutboxEventFactory.create())
    OutboxEvent.objects.all().delete()
    replay(letter_id=letter.pk)
    publish_all()
    letter.delete()
    assert pruned() == "pruned 1\n"


@pytest.mark.parametrize(
    ("older_than", "stay"),
    [(None, [29]), ("30d", [29]), ("42d", [29, 30.01, 41]), ("720h", [29]), ("43200m", [29]), ("2592000s", [29])],
)
def test_the_age_counts_from_publication(pruned: Prune, older_than: str | None, stay: list[float]) -> None:
    rows = {days: published(timedelta(days=days), created_at=now() - timedelta(days=99)) for days in (29, 30.01, 41)}
    for row in rows.values():
        notify_of(row)
    pruned(*(["--older-than", older_than] if older_than else []))
    assert set(OutboxEvent.objects.values_list("pk", flat=True)) == {rows[days].pk for days in stay}


@pytest.mark.parametrize(
    "age", ["", "30", "d", "-1d", "0d", "00s", "1.5d", "30 d", "30D", "30w", "1d2h", "٣d", "30d\n", "9" * 5000 + "d"]
)
def test_a_malformed_age_is_an_error_with_an_example(pruned: Prune, age: str) -> None:
    notify_of(published())
    with pytest.raises(CommandError, match="give a positive whole number with d, h, m or s, such as 30d"):
        pruned(f"--older-than={age}")
    assert OutboxEvent.objects.exists()


@pytest.mark.parametrize("age", ["1000000d", "999999999999999s"])
def test_an_age_before_the_year_1_is_an_error(pruned: Prune, age: str) -> None:
    with pytest.raises(CommandError, match="before the year 1: give a smaller number"):
        pruned("--older-than", age)


def test_rows_are_pruned_in_batches(pruned: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "BATCH_ROWS", 2)
    kept = []
    for _ in range(3):
        for _ in range(2):
            notify_of(published())
        kept += [published().pk for _ in range(2)]
    assert [*prune.prune(published_before=now() - timedelta(days=41))] == [0] * 6
    assert [*prune.prune(published_before=now())] == [2, 0, 2, 0, 2, 0]
    assert list(OutboxEvent.objects.order_by("pk").values_list("pk", flat=True)) == kept


def test_new_rows_do_not_prolong_a_prune(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "BATCH_ROWS", 1)
    OutboxEventFactory.create()
    for step, _ in enumerate(prune.prune(published_before=now())):
        assert step == 0
        OutboxEventFactory.create()


def test_a_signal_ends_a_prune_between_transactions(pruned: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "BATCH_ROWS", 2)
    monkeypatch.setattr(prune_events, "Shutdown", lambda: Signalled(at_second_call=True))
    for _ in range(6):
        notify_of(published())
    assert pruned() == "pruned 4\n"
    assert OutboxEvent.objects.count() == 2


@pytest.fixture
def order(user: User) -> Order:
    """Return an order that was placed, paid and cancelled, with three events."""
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    pay_order(order_id=order.pk)
    return cancel_order(order_id=order.pk).order


def handle(*sequences: int) -> None:
    """Mark the events with these sequences as published 40 days ago, and create their notifications."""
    rows = OutboxEvent.objects.filter(sequence__in=sequences)
    rows.update(
        published_at=now() - timedelta(days=40), published_path="fast", published_partition=0, published_offset=0
    )
    notify([decode(bytes(row.value or b"")) for row in rows])


def test_a_gap_in_a_stream_blocks_nothing(pruned: Prune, order: Order) -> None:
    handle(1)
    assert pruned() == "pruned 1\n"
    assert [row.sequence for row in OutboxEvent.objects.sendable()] == [2]
    handle(2)
    assert [row.sequence for row in OutboxEvent.objects.sendable()] == [3]
    assert pruned() == "pruned 1\n"
    assert [row.sequence for row in OutboxEvent.objects.sendable()] == [3]


def test_the_timeline_shows_discarded_events(pruned: Prune, order: Order, api: APIClient) -> None:
    before = timeline(order)
    handle(1, 2)
    assert pruned("--discard-history") == "pruned 2\n"
    placed, paid, cancelled = api.get(f"/api/orders/{order.pk}/events").json()
    ids = list(Notification.objects.order_by("pk").values_list("pk", flat=True))
    unknown = dict.fromkeys(("publishedAt", "partition", "offset"))
    assert placed == before[0] | unknown | {"state": "NOTIFIED", "notificationId": ids[0]}
    assert placed["timestamp"] == rfc3339(order.created_at)
    assert paid == before[1] | unknown | {"state": "NOTIFIED", "notificationId": ids[1], "timestamp": None}
    assert cancelled == before[2]


def test_the_timeline_shows_a_discarded_dismissed_event(pruned: Prune, order: Order) -> None:
    row = OutboxEvent.objects.get(sequence=2)
    publish_all()
    record = kafka_record(bytes(row.value or b""))
    record_dead_letter(record=record, error=Poison("no event"), group=NOTIFICATIONS.group)
    DeadLetter.objects.update(state="dismissed")
    assert pruned("--discard-history") == "pruned 1\n"
    assert [(entry["eventType"], entry["state"]) for entry in timeline(order)] == [
        ("ORDER_CREATED", "PUBLISHED"),
        ("ORDER_PAID", "PUBLISHED"),
        ("ORDER_CANCELLED", "PUBLISHED"),
    ]


def test_the_timeline_shows_a_replay_as_dead_until_notified(order: Order) -> None:
    publish_all()
    row = OutboxEvent.objects.get(sequence=1)
    letter = make_dead_letter(row)
    for _ in range(2):
        replay(letter_id=letter.pk)
        assert [entry["state"] for entry in timeline(order)] == ["DEAD", "PUBLISHED", "PUBLISHED"]
    notify([decode(bytes(row.value or b""))])
    DeadLetter.objects.update(state="replayed")
    assert [entry["state"] for entry in timeline(order)] == ["NOTIFIED", "PUBLISHED", "PUBLISHED"]
