"""After an order's rows were moved to the history, all code that reads its events gives the same results as before."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from rest_framework.test import APIClient

from commerce.operations import prune as pruning
from commerce.operations.prune import prune
from commerce.operations.reconcile import Missing, repair
from events.consuming.dead_letters import dismiss, record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.subscriptions import Subscription
from events.troubles import Poison
from events.wire.timestamps import now
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS, notify
from orders import history
from orders.events import ORDER_EVENTS, ORDER_PAID, decode
from orders.history import maintenance
from orders.models import Order, OrderHistory
from orders.services import Line, cancel_order, pay_order, place_order, record_lost_event
from payments.subscriptions import PAYMENTS
from testkit.factories import OutboxEventFactory, kafka_record
from testkit.subscriptions import missing_of
from testkit.waiting import a_lock_is_awaited, wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("notifications_alone")]

OFFSETS = {1: 70, 2: 71, 3: 72}


def handle_all() -> None:
    """Mark the rows of all events of orders as published, and create the notifications of these events."""
    for row in OutboxEvent.objects.filter(stream__startswith="order-"):
        OutboxEvent.objects.filter(pk=row.pk).update(
            published_at=now() - timedelta(days=40),
            published_path="fast",
            published_partition=1,
            published_offset=OFFSETS[row.sequence or 0],
        )
        notify([decode(bytes(row.value or b""))])


def prune_all(**options: Any) -> int:
    return sum(prune(published_before=now(), **options))


def place(user: User, *, changes: int = 3) -> Order:
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    for change in [pay_order, cancel_order][: changes - 1]:
        order = change(order_id=order.pk).order
    return order


@pytest.fixture
def order(user: User) -> Order:
    """Return an order that was placed, paid and cancelled, whose events are published and handled."""
    order = place(user)
    handle_all()
    return order


def test_the_api_shows_moved_events_as_before(order: Order, api: APIClient) -> None:
    paths = (f"/api/orders/{order.pk}/events", f"/api/orders/{order.pk}", "/api/orders", "/api/notifications")
    before = [api.get(path).content for path in paths]
    assert prune_all() == 3
    assert (OutboxEvent.objects.count(), OrderHistory.objects.count()) == (0, 3)
    assert [api.get(path).content for path in paths] == before
    (first, *_) = api.get(paths[0]).json()
    assert (first["state"], first["partition"], first["offset"]) == ("NOTIFIED", 1, 70)


def test_a_half_moved_order_is_shown_as_before(order: Order, api: APIClient) -> None:
    path = f"/api/orders/{order.pk}/events"
    before = api.get(path).content
    rows = OutboxEvent.objects.filter(sequence=2)
    assert history.move_to_history([rows.get().pk]) == 1
    assert api.get(path).content == before


def test_admin_links_to_the_moved_row(order: Order, admin_client: Client) -> None:
    prune_all()
    row = OrderHistory.objects.get(sequence=1)
    notification = Notification.objects.get(event_id=row.event_id)
    page = f"/admin/orders/orderhistory/{row.pk}/change/"
    for path in (f"orders/order/{order.pk}", f"notifications/notification/{notification.pk}"):
        assert page in admin_client.get(f"/admin/{path}/change/").content.decode()
    text = admin_client.get(page).content.decode()
    assert f"/admin/orders/order/{order.pk}/change/" in text
    assert f"/admin/notifications/notification/{notification.pk}/change/" in text
    related = text.partition('class="related"')[2].partition("</nav>")[0]
    assert "/orders/order/" in related
    assert page not in related
    assert "&quot;orderId&quot;" in text


def test_admin_lists_the_history_and_changes_nothing(order: Order, admin_client: Client) -> None:
    prune_all()
    row = OrderHistory.objects.get(sequence=2)
    for term in (str(row.event_id), row.stream, str(order.pk)):
        assert str(row.event_id) in admin_client.get("/admin/orders/orderhistory/", {"q": term}).content.decode()
    assert str(row.event_id) not in admin_client.get("/admin/orders/orderhistory/", {"q": "order-0"}).content.decode()
    for path in ("add/", f"{row.pk}/delete/"):
        assert admin_client.get(f"/admin/orders/orderhistory/{path}").status_code == 403
    assert admin_client.post(f"/admin/orders/orderhistory/{row.pk}/change/", {"stream": "x"}).status_code == 403


def test_nothing_moved_is_missing(order: Order) -> None:
    prune_all()
    assert missing_of(NOTIFICATIONS) == Missing()
    # Even without a receipt: the row alone proves the change.
    Notification.objects.all().delete()
    assert not missing_of(NOTIFICATIONS).changes


def test_an_unhandled_moved_event_is_sent_again(order: Order, api: APIClient) -> None:
    """`prune_events` has moved the event to the history, and the event's notification was then lost.

    This happens, for example, if the notifications are restored from an old backup.
    """
    prune_all()
    second = OrderHistory.objects.get(sequence=2)
    Notification.objects.filter(event_id=second.event_id).delete()
    missing = missing_of(NOTIFICATIONS)
    assert missing == Missing(events={second.event_id})
    assert repair(missing).events == 1
    assert [row.event_id for row in OutboxEvent.objects.sendable()] == [second.event_id]
    assert set(OrderHistory.objects.values_list("sequence", flat=True)) == {1, 3}
    shown = api.get(f"/api/orders/{order.pk}/events").json()
    assert [one["state"] for one in shown] == ["NOTIFIED", "PENDING", "NOTIFIED"]
    handle_all()
    assert prune_all() == 1
    assert OrderHistory.objects.count() == 3


def test_a_lost_event_between_moved_ones_is_recorded_again(order: Order) -> None:
    prune_all()
    with maintenance():
        first, lost, _ = OrderHistory.objects.order_by("sequence")
        OrderHistory.objects.filter(pk=lost.pk).delete()
        Notification.objects.filter(event_id=lost.event_id).delete()
    assert missing_of(NOTIFICATIONS) == Missing(changes={(order.pk, 2)})
    again = record_lost_event(order_id=order.pk, sequence=2)
    assert (again.event_id, again.created_at) == (lost.event_id, first.created_at)


def test_a_dismissed_event_moves_and_stays_known(user: User, api: APIClient) -> None:
    order = place(user, changes=1)
    row = OutboxEvent.objects.get()
    OutboxEvent.objects.update(published_at=now(), published_partition=0, published_offset=0)
    record = kafka_record(bytes(row.value or b""), topic=row.topic)
    record_dead_letter(record=record, error=Poison("no event"), group=NOTIFICATIONS.group)
    letter = DeadLetter.objects.get()
    assert prune_all() == 0
    dismiss(letter_id=letter.pk)
    before = api.get(f"/api/orders/{order.pk}/events").content
    assert prune_all() == 1
    assert OrderHistory.objects.get().event_id == row.event_id
    assert api.get(f"/api/orders/{order.pk}/events").content == before
    assert missing_of(NOTIFICATIONS) == Missing()


def test_rows_of_other_streams_are_deleted(order: Order) -> None:
    position = {"published_at": now(), "published_partition": 0, "published_offset": 0, "topic": "notification-events"}
    OutboxEventFactory.create(**position)
    OutboxEventFactory.create(stream="parcel-1", sequence=1, **position)
    assert prune_all() == 5
    assert not OutboxEvent.objects.exists()
    assert OrderHistory.objects.count() == 3


def test_discarded_events_are_gone(order: Order, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("prune_events", "--discard-history")
    assert capsys.readouterr().out == "pruned 3\n"
    assert not OutboxEvent.objects.exists()
    assert not OrderHistory.objects.exists()


def test_a_group_misses_no_events_that_it_does_not_want(order: Order) -> None:
    prune_all(discards_history=True)
    assert missing_of(PAYMENTS.subscription()) == Missing()
    loyalty = Subscription(group="loyalty", topic=ORDER_EVENTS, decode=decode, handle=len, event_types=[ORDER_PAID])
    assert missing_of(loyalty) == Missing(changes={(order.pk, 2)})


def test_a_row_that_is_in_both_tables_stays_in_both(order: Order, user: User) -> None:
    """Only another program can put a row into both outbox and history. Prune leaves it, goes on, and loses nothing."""
    prune_all()
    kept = OrderHistory.objects.get(sequence=1)
    copy = {"event_id": kept.event_id, "stream": kept.stream, "sequence": 1, "value": kept.value}
    OutboxEventFactory.create(**copy, published_at=now(), published_partition=0, published_offset=0)
    place(user)
    handle_all()
    assert prune_all() == 3
    assert OutboxEvent.objects.get().event_id == kept.event_id
    assert OrderHistory.objects.count() == 6


class PowerCut(BaseException):
    """An exception that stands for the death of the process."""


@pytest.fixture
def die_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that takes a number of batches, and makes `prune` raise PowerCut in the batch after them.

    The error comes after rows were moved and before the commit.
    """

    def die_after(batches: int) -> None:
        calls: list[int] = []

        def move(row_ids: list[int]) -> int:
            calls.append(history.move_to_history(row_ids))
            if len(calls) > batches:
                raise PowerCut
            return calls[-1]

        monkeypatch.setattr(pruning, "move_to_history", move)

    return die_after


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_prune_that_dies_leaves_each_row_in_one_table(
    user: User, monkeypatch: pytest.MonkeyPatch, die_after: Callable[[int], None], batches: int
) -> None:
    monkeypatch.setattr(pruning, "BATCH_ROWS", 2)
    place(user)
    place(user)
    handle_all()
    ids = set(OutboxEvent.objects.values_list("pk", flat=True))
    die_after(batches)
    moved = []
    with pytest.raises(PowerCut):
        for number in prune(published_before=now()):
            moved.append(number)  # noqa: PERF402
    assert moved == [2] * batches
    in_outbox = set(OutboxEvent.objects.values_list("pk", flat=True))
    in_history = set(OrderHistory.objects.values_list("pk", flat=True))
    assert len(in_history) == 2 * batches
    assert (in_outbox | in_history, in_outbox & in_history) == (ids, set())
    monkeypatch.undo()
    assert prune_all() == len(in_outbox)
    assert set(OrderHistory.objects.values_list("pk", flat=True)) == ids


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], threading.Thread]]:
    threads: list[threading.Thread] = []

    def start(function: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                function()
            finally:
                connection.close()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(30)


@pytest.mark.django_db(transaction=True)
def test_a_row_that_becomes_pending_meanwhile_stays(user: User, in_thread: Callable[..., Any]) -> None:
    order = place(user)
    handle_all()
    position = {"published_at": now(), "published_partition": 0, "published_offset": 0}
    other = OutboxEventFactory.create(topic="notification-events", **position)
    with transaction.atomic():
        OutboxEvent.objects.exclude(sequence__in=[1, 3]).update(
            published_at=None, published_path=None, published_partition=None, published_offset=None
        )
        thread = in_thread(prune_all)
        wait_until(a_lock_is_awaited)
    thread.join(30)
    assert set(OutboxEvent.objects.values_list("stream", "sequence")) == {(order.stream, 2), (None, None)}
    assert OutboxEvent.objects.filter(pk=other.pk).exists()
    assert OrderHistory.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_prunes_at_once_move_each_row_once(user: User, in_thread: Callable[..., Any]) -> None:
    for _ in range(5):
        place(user)
    handle_all()
    counts: list[int] = []
    with transaction.atomic():
        OutboxEvent.objects.select_for_update().first()
        threads = [in_thread(lambda: counts.append(prune_all())) for _ in range(2)]
        wait_until(a_lock_is_awaited)
    for thread in threads:
        thread.join(30)
    assert sum(counts) == 15
    assert not OutboxEvent.objects.exists()
    assert OrderHistory.objects.count() == 15
