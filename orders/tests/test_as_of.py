"""An order as it was at an earlier time, from the API and from `show_order`."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient

from events.models import OutboxEvent
from events.wire.timestamps import now, rfc3339
from orders.history import BrokenHistory, RecordedEvent, events_of_order, fold, maintenance, move_to_history
from orders.models import Order, OrderHistory
from orders.services import Line, cancel_order, pay_order, place_order
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

START = datetime(2025, 1, 30, 10, 15, 30, 123000, tzinfo=UTC)
SEOUL = timezone(timedelta(hours=9))


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


@pytest.fixture
def order(user: User) -> Order:
    """Return an order that was placed at second 0, paid at second 10 and cancelled at second 20."""
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00")), Line(7, 1, Decimal("0.05"))]).order
    pay_order(order_id=order.pk)
    cancel_order(order_id=order.pk)
    set_times(order, 0, 10, 20)
    return Order.objects.get(pk=order.pk)


def set_times(order: Order, *seconds: float) -> None:
    """Change the times of the order's events to these seconds after `START`, one for each event.

    The first time also becomes the order's `created_at`.
    """
    for number, second in enumerate(seconds, start=1):
        row = OutboxEvent.objects.get(stream=order.stream, sequence=number)
        value = json.loads(bytes(row.value or b"")) | {"timestamp": rfc3339(at(second))}
        OutboxEvent.objects.filter(pk=row.pk).update(value=json.dumps(value).encode(), created_at=at(second))
    Order.objects.filter(pk=order.pk).update(created_at=at(seconds[0]))


def move(order: Order, *numbers: int) -> None:
    rows = OutboxEvent.objects.filter(stream=order.stream, sequence__in=numbers)
    rows.update(published_at=now(), published_partition=0, published_offset=0)
    assert move_to_history(list(rows.values_list("pk", flat=True))) == len(numbers)


def forget(order: Order, *numbers: int) -> None:
    OutboxEvent.objects.filter(stream=order.stream, sequence__in=numbers).delete()
    with maintenance():
        OrderHistory.objects.filter(stream=order.stream, sequence__in=numbers).delete()


def get(api: APIClient, order: Order, as_of: str) -> Any:
    return api.get(f"/api/orders/{order.pk}?asOf={quote(as_of)}")


STATES = [
    (0, "PENDING"),
    (0.0009, "PENDING"),
    (9.999, "PENDING"),
    (10, "PAID"),
    (19.999, "PAID"),
    (20, "CANCELLED"),
    (10**9, "CANCELLED"),
]


@pytest.mark.parametrize("moved", [(), (1,), (2,), (1, 2, 3)], ids=str)
@pytest.mark.parametrize(("second", "status"), STATES)
def test_an_order_is_shown_as_it_was(
    api: APIClient, order: Order, second: float, status: str, moved: tuple[int, ...]
) -> None:
    if moved:
        move(order, *moved)
    now_shown = api.get(f"/api/orders/{order.pk}").json()
    answer = get(api, order, at(second).isoformat())
    assert answer.status_code == 200
    assert answer.json() == now_shown | {"status": status}
    assert len(answer.json()["items"]) == 2
    assert b'"totalAmount":200.05' in answer.content


@pytest.mark.parametrize("second", [-0.0001, -1, -(10**9)])
@pytest.mark.parametrize("forgotten", [(), (1,), (1, 2, 3)], ids=str)
def test_an_order_before_its_first_event_is_404(
    api: APIClient, order: Order, second: float, forgotten: tuple[int, ...]
) -> None:
    forget(order, *forgotten)
    answer = get(api, order, at(second).isoformat())
    assert answer.status_code == 404
    assert answer["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "spelled",
    [
        "2025-01-30T10:15:45Z",
        "2025-01-30t10:15:45z",
        "2025-01-30 10:15:45Z",
        "2025-01-30T19:15:45+09:00",
        "2025-01-30T19:15:45.000000001+09:00",
        "2025-01-29T22:15:45-12:00",
        "2025-01-31T10:14:45+23:59",
        "2025-01-29T10:16:45-23:59",
    ],
)
def test_any_offset_is_taken(api: APIClient, order: Order, spelled: str) -> None:
    answer = get(api, order, spelled)
    assert (answer.status_code, answer.json()["status"]) == (200, "PAID")


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "now",
        "2025-01-30",
        "2025-01-30T10:15:45",
        "2025-01-30T10:15:45 09:00",
        "2025-01-30T10:15:60Z",
        "2025-02-30T10:15:45Z",
        "2025-01-30T25:15:45Z",
        "2025-01-30T10:15:45+24:00",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "1738232145",
        "\x00",
        "٢٠٢٥-01-30T10:15:45Z",
        "Z" * 5000,
    ],
)
def test_a_bad_time_is_a_problem(api: APIClient, order: Order, spelled: str) -> None:
    answer = get(api, order, spelled)
    assert answer.status_code == 400
    assert answer["content-type"] == "application/problem+json"
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/asOf"]


@pytest.mark.parametrize("spelled", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_ends_of_time_are_taken(api: APIClient, order: Order, spelled: str) -> None:
    assert get(api, order, spelled).status_code in (200, 404)


def test_another_users_order_is_404(order: Order) -> None:
    other = APIClient()
    other.force_authenticate(UserFactory.create())
    assert get(other, order, at(15).isoformat()).status_code == 404
    assert get(APIClient(), order, at(15).isoformat()).status_code == 401


def test_head_is_answered_as_get(api: APIClient, order: Order) -> None:
    assert api.head(f"/api/orders/{order.pk}?asOf={quote(at(15).isoformat())}").status_code == 200


@pytest.mark.parametrize(
    ("forgotten", "second", "status_code"),
    [
        ((1,), 5, 410),
        ((2,), 5, 410),
        ((3,), 5, 200),
        ((3,), 15, 410),
        ((3,), 25, 410),
        ((2, 3), 5, 410),
        ((1, 2, 3), 25, 410),
    ],
    ids=str,
)
def test_an_unknown_past_is_gone(
    api: APIClient, order: Order, forgotten: tuple[int, ...], second: float, status_code: int
) -> None:
    """The API answers 410 if a missing event may have changed the order by the given time.

    Without event 3, it still answers for second 5: event 2 came at second 10, so only event 1 counts.
    """
    forget(order, *forgotten)
    answer = get(api, order, at(second).isoformat())
    assert answer.status_code == status_code
    if status_code == 410:
        assert "missing" in answer.json()["detail"]


def test_the_fold_never_skips_an_event_of_a_fast_clock(order: Order) -> None:
    """Event 2 has a later time than event 3, because of a fast clock. Event 3 does not count before event 2 does."""
    set_times(order, 0, 60, 20)
    events = events_of_order(order.pk)
    for second, status in ((0, "PENDING"), (30, "PENDING"), (59, "PENDING"), (60, "CANCELLED")):
        state = fold(order.pk, events, as_of=at(second))
        assert state is not None
        assert state.status == status
    assert fold(order.pk, events, as_of=at(-1)) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({2: None}, "event 2 is missing"),
        ({1: None}, "event 1 is missing"),
        ({1: None, 2: None}, "events 1 to 2 are missing"),
        ({2: {"event_type": "ORDER_CREATED"}}, "eventType ORDER_PAID in its value, and ORDER_CREATED in its row"),
        ({2: {"event_id": UUID(int=1)}}, "has eventId"),
        ({3: {"created_at": at(21)}}, "has timestamp"),
        ({1: {"value": None}}, "event 1 cannot be read: The value is null"),
        ({1: {"value": b"\xff"}}, "event 1 cannot be read: Not UTF-8"),
        ({1: {"value": b"{}"}}, "event 1 cannot be read: Not an order event"),
        ({3: {"sequence": 2}}, "event 2 is stored twice"),
    ],
    ids=str,
)
def test_a_broken_history_is_not_folded(order: Order, change: dict[int, Any], fault: str) -> None:
    events = {event.sequence: event for event in events_of_order(order.pk)}
    changed: list[RecordedEvent] = []
    for number, event in events.items():
        if (fields := change.get(number, {})) is not None:
            changed.append(event._replace(**fields))
    with pytest.raises(BrokenHistory, match=fault):
        fold(order.pk, changed)


def test_a_value_of_another_order_is_not_folded(order: Order) -> None:
    with pytest.raises(BrokenHistory, match="event 1 has orderId"):
        fold(order.pk + 1, events_of_order(order.pk))


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    call_command("show_order", *arguments)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("second", "status"), STATES)
def test_the_command_shows_what_the_api_shows(
    api: APIClient, order: Order, capsys: pytest.CaptureFixture[str], second: float, status: str
) -> None:
    move(order, 1, 2)
    moment = at(second).astimezone(SEOUL).isoformat()
    shown = show(capsys, str(order.pk), "--as-of", moment)
    assert shown == get(api, order, moment).json()
    assert shown["status"] == status
    assert shown["items"] == [{"id": ANY, "productId": n, "quantity": q, "price": p} for n, q, p in ITEMS]


ITEMS = [(1, 2, 100.0), (7, 1, 0.05)]


def test_the_command_shows_the_present_by_default(order: Order, capsys: pytest.CaptureFixture[str]) -> None:
    set_times(order, 0, 10, 10**10)
    assert show(capsys, str(order.pk))["status"] == "CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0"], r"There is no order 0\."),
        (["9" * 30], "There is no order 9"),
        (["{id}", "--as-of", "yesterday"], r"--as-of is 'yesterday'\. Must be RFC 3339 with an offset"),
        (["{id}", "--as-of", "2025-01-30T10:15:60Z"], "second 60"),
        (
            ["{id}", "--as-of", "2025-01-30T10:15:30.122Z"],
            "had no event yet: it was placed at 2025-01-30T10:15:30",
        ),
        (["{id}", "--as-of", "2025-01-30T10:15:55Z"], "is not known: event 3 is missing"),
    ],
)
def test_the_command_says_why_it_shows_nothing(order: Order, arguments: list[str], message: str) -> None:
    forget(order, 3)
    with pytest.raises(CommandError, match=message):
        call_command("show_order", *[one.format(id=order.pk) for one in arguments])
