"""`reconcile_events --repair` sends events of the past again, and users get no e-mails about them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pytest_django import Settings

from events.models import OutboxEvent
from events.testing import deliver
from notifications.models import EmailDelivery, Notification
from notifications.subscriptions import NOTIFICATIONS
from orders.models import Order
from orders.services import Line, pay_order, place_order, record_lost_event
from testkit.mail.deliveries import customer, use_mail_server


@pytest.mark.django_db
@pytest.mark.parametrize("sequence", [1, 2])
def test_a_lost_event_of_an_old_order_mails_nobody(settings: Settings, sequence: int) -> None:
    use_mail_server(settings, "smtp://mail.example")
    line = Line(product_id=1, quantity=1, price=Decimal("1.00"))
    order = place_order(user_id=customer().pk, lines=[line]).order
    pay_order(order_id=order.pk)
    Order.objects.update(created_at=datetime(2025, 1, 30, tzinfo=UTC))
    OutboxEvent.objects.all().delete()
    message = record_lost_event(order_id=order.pk, sequence=sequence)
    assert deliver(NOTIFICATIONS, [message.value]) == []
    assert Notification.objects.count() == 1
    assert not EmailDelivery.objects.exists()
