"""Admin shows a notification with separators in the amount, such as 1,234원. The tooltip shows the stored text."""

import re
from decimal import Decimal
from uuid import uuid4

import pytest
from django.test import Client

from events.wire.timestamps import now
from notifications.models import Notification
from notifications.subscriptions import SENTENCES, notify
from orders.events import OrderEvent, OrderEventType

pytestmark = pytest.mark.django_db

LIST = "/admin/notifications/notification/"
SHOWN = re.compile(r'<span title="([^"]*)">([^<]*원[^<]*)</span>')


def notification_of(event_type: OrderEventType, amount: str) -> Notification:
    event = OrderEvent(
        event_id=uuid4(),
        event_type=event_type,
        timestamp=now(),
        order_id=1234567,
        user_id=1,
        total_amount=Decimal(amount),
    )
    notify([event])
    return Notification.objects.get(event_id=event.event_id)


@pytest.mark.parametrize("event_type", SENTENCES)
@pytest.mark.parametrize(
    ("amount", "stored", "shown"),
    [
        ("1234567.00", "1234567.00원", "1,234,567원"),
        ("1234567.5", "1234567.50원", "1,234,567.50원"),
        ("999", "999.00원", "999원"),
        ("0", "0.00원", "0원"),
        ("-50000", "-50000.00원", "-50,000원"),
        ("99999999999999999999.99", "99999999999999999999.99원", "99,999,999,999,999,999,999.99원"),
    ],
)
def test_the_amount_of_a_message_has_separators(
    admin_client: Client, event_type: OrderEventType, amount: str, stored: str, shown: str
) -> None:
    notification = notification_of(event_type, amount)
    text = f"{SENTENCES[event_type]}. 주문번호: 1234567, 금액: "
    assert notification.message == text + stored
    for page in (LIST, f"{LIST}{notification.pk}/change/"):
        assert SHOWN.findall(admin_client.get(page).content.decode()) == [(text + stored, text + shown)]


@pytest.mark.parametrize("message", ["금액: 1234.50원 환불", "금액 1234.50원", "금액: 1234원", "<b>금액: 많음</b>"])
def test_a_message_of_another_form_is_shown_as_it_is(admin_client: Client, message: str) -> None:
    notification = notification_of("ORDER_PAID", "1")
    Notification.objects.filter(pk=notification.pk).update(message=message)
    escaped = message.replace("<", "&lt;").replace(">", "&gt;")
    text = admin_client.get(f"{LIST}{notification.pk}/change/").content.decode()
    assert f'<span title="{escaped}">{escaped}</span>' in text
