"""Admin shows each attempt at a dead letter, and links to the order that the letter's message names."""

import html
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from commerce.operations.prune import prune
from events.consuming.dead_letters import close_replayed, record_dead_letter
from events.consuming.replay import replay
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.headers import unpack
from events.wire.timestamps import now
from orders.models import Order
from orders.services import Line, place_order
from testkit.factories import kafka_record, poison_that_names

pytestmark = pytest.mark.django_db

GROUP = settings.NOTIFICATION_CONSUMER_GROUP


@pytest.fixture
def order(user: User) -> Order:
    return place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order


def letter_of(value: bytes | None, error: str = "no event", **record: Any) -> DeadLetter:
    position = {"offset": DeadLetter.objects.count()} | record
    record_dead_letter(record=kafka_record(value, **position), error=Poison(error), group=GROUP)
    return DeadLetter.objects.latest("pk")


def consume_replay(letter: DeadLetter, error: str | None) -> None:
    """Replay the dead letter. Let the replay fail with `error`; if `error` is None, let it be handled."""
    assert not replay(letter_id=letter.pk).refusal
    row = OutboxEvent.objects.filter(dead_letter=letter).latest("pk")
    record = kafka_record(bytes(row.value or b""), offset=1000 + row.pk, headers=unpack(row.headers))
    if error is None:
        close_replayed([record], group=GROUP)
    else:
        record_dead_letter(record=record, error=Poison(error), group=GROUP)


def letter_page(client: Client, letter: DeadLetter, language: str = "en") -> str:
    response = client.get(f"/admin/events/deadletter/{letter.pk}/change/", headers={"accept-language": language})
    assert response.status_code == 200
    return response.content.decode()


def lines(page: str, css_class: str) -> list[str]:
    """Return the text of each list item in the part of the HTML `page` with this CSS class."""
    (card,) = re.findall(rf'class="[^"]*{css_class}.*?(?=<fieldset|<div class="submit-row|\Z)', page, re.DOTALL)
    items = re.findall(r"<li[^>]*>(.*?)</li>", card, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", item)).split()) for item in items]


TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC"


def test_a_letters_page_tells_each_attempt(admin_client: Client) -> None:
    letter = letter_of(b"garbage", "first <b>")
    assert "Attempts" not in letter_page(admin_client, letter)
    consume_replay(letter, "second")
    assert not replay(letter_id=letter.pk).refusal
    first, second, third = lines(letter_page(admin_client, letter), "attempts")
    assert re.fullmatch(f"First attempt failed {TIME} Poison: first <b>", first)
    assert re.fullmatch(f"Replay 1 sent {TIME} failed {TIME} Poison: second", second)
    assert re.fullmatch(f"Replay 2 sent {TIME} no result yet", third)
    assert "first <b>" not in letter_page(admin_client, letter)


@pytest.mark.parametrize(
    ("state", "outcome"), [("replayed", f"handled {TIME}"), ("dismissed", "no result was recorded")]
)
def test_the_last_attempt_of_a_closed_letter(admin_client: Client, state: str, outcome: str) -> None:
    letter = letter_of(b"garbage")
    consume_replay(letter, "second")
    consume_replay(letter, None)
    DeadLetter.objects.update(state=state)
    *_, last = lines(letter_page(admin_client, letter), "attempts")
    assert re.fullmatch(f"Replay 2 sent {TIME} {outcome}", last)


def test_an_orders_timeline_tells_each_attempt(admin_client: Client, order: Order) -> None:
    event = OutboxEvent.objects.get(stream=order.stream)
    named = poison_that_names(event_id=event.event_id, order_id=order.pk, event_type=event.event_type)
    letter = letter_of(named, "first")
    consume_replay(letter, "<script>second")
    page = admin_client.get(f"/admin/orders/order/{order.pk}/change/").content.decode()
    told = lines(page, "timeline")
    assert re.fullmatch(rf"Dead letter {TIME} order-events\[0\]@0 Open, replayed once Poison: first", told[2])
    assert re.fullmatch(f"Replay 1 {TIME} failed {TIME} Poison: <script>second", told[3])
    assert "<script>second" not in page


def test_more_letters_take_no_more_queries(admin_client: Client, order: Order) -> None:
    event = OutboxEvent.objects.get(stream=order.stream)

    def queries(letters: int) -> int:
        for _ in range(letters):
            named = poison_that_names(event_id=event.event_id, order_id=order.pk, event_type=event.event_type)
            consume_replay(letter_of(named + b" " * DeadLetter.objects.count()), "again")
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(f"/admin/orders/order/{order.pk}/change/").status_code == 200
        return len(captured)

    assert queries(1) == queries(10)


def test_attempts_outlive_the_pruned_rows_of_replays(admin_client: Client) -> None:
    letter = letter_of(b"garbage")
    consume_replay(letter, "second")
    consume_replay(letter, None)
    yesterday = now() - timedelta(days=1)
    OutboxEvent.objects.update(published_at=yesterday, published_path="fast", published_partition=0, published_offset=0)
    assert sum(prune(published_before=now()))
    assert not OutboxEvent.objects.filter(dead_letter=letter).exists()
    assert len(lines(letter_page(admin_client, letter), "attempts")) == 3


def test_replays_of_an_earlier_release_are_not_invented(admin_client: Client) -> None:
    letter = letter_of(b"garbage")
    DeadLetter.objects.update(replay_count=2)
    assert "Attempts" not in letter_page(admin_client, letter)


# --- The order that a message names -------------------------------------------------------------


def link_to(order: Order) -> str:
    return f'<a href="/admin/orders/order/{order.pk}/change/">'


@pytest.mark.parametrize(
    "value",
    [
        '{{"orderId":{0}}}',
        '{{"orderId":{0},"eventId":"no id","eventType":7}}',
        '{{"note":"%s","orderId":{0}}}' % ("x" * 10_000),
        '{{"eventId":"5f0c7a3e-0000-4000-8000-000000000007","eventType":"ORDER_LOST","orderId":{0}}}',
    ],
)
def test_a_letter_leads_to_the_order_that_it_names(admin_client: Client, order: Order, value: str) -> None:
    page = letter_page(admin_client, letter_of(value.format(order.pk).encode()))
    assert f"The message names {link_to(order)}order {order.pk}</a>" in page
    assert "nothing else is known" not in page


@pytest.mark.parametrize(
    "value",
    [
        b"garbage",
        None,
        b'{"orderId":999999999}',
        b'{"orderId":-1}',
        b'{"orderId":99999999999999999999999}',
        b'{"orderId":"<script>"}',
        b'{"orderId":true}',
        b'{"orderId":null}',
        b'{"orderId":' + b"[" * 5000,
    ],
)
def test_an_unknown_order_is_not_linked(admin_client: Client, order: Order, value: bytes | None) -> None:
    page = letter_page(admin_client, letter_of(value))
    assert "The message names" not in page
    assert "/admin/orders/order/-1/" not in page


def test_a_message_of_another_topic_names_no_order(admin_client: Client, order: Order) -> None:
    value = b'{"orderId":%d,"subjectId":%d}' % (order.pk, order.pk)
    assert link_to(order) not in letter_page(admin_client, letter_of(value, topic="payments"))


def test_a_very_large_message_is_not_read(admin_client: Client, order: Order) -> None:
    value = b'{"orderId":%d,"note":"%s"}' % (order.pk, b"x" * 100_000)
    assert "The message names" not in letter_page(admin_client, letter_of(value))


def test_an_order_that_is_linked_already_is_not_repeated(admin_client: Client, order: Order) -> None:
    event = OutboxEvent.objects.get(stream=order.stream)
    named = poison_that_names(event_id=event.event_id, order_id=order.pk, event_type=event.event_type)
    page = letter_page(admin_client, letter_of(named))
    assert page.count(link_to(order)) == 1
    assert "The message names" not in page


def test_a_message_with_anothers_event_id_leads_to_both(admin_client: Client, order: Order, user: User) -> None:
    other = place_order(user_id=user.pk, lines=[Line(1, 1, Decimal("5.00"))]).order
    event = OutboxEvent.objects.get(stream=order.stream)
    named = poison_that_names(event_id=event.event_id, order_id=other.pk, event_type=event.event_type)
    page = letter_page(admin_client, letter_of(named))
    assert f"{link_to(order)}order {order.pk}</a>" in page
    assert f"The message names {link_to(other)}order {other.pk}</a>" in page


def test_the_link_is_korean(admin_client: Client, order: Order) -> None:
    value = poison_that_names(event_id=uuid4(), order_id=order.pk, event_type="ORDER_LOST")
    assert f"메시지에 적힌 {link_to(order)}주문 {order.pk}</a>" in letter_page(admin_client, letter_of(value), "ko")
