"""Admin shows all lists and rows, and changes none of them."""

from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client

from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.headers import pack
from notifications.models import Notification
from orders.services import Line, place_order
from testkit.factories import NotificationFactory, OutboxEventFactory, kafka_record

pytestmark = pytest.mark.django_db


def test_admin_shows_every_list_and_changes_nothing(admin_client: Client, admin_user: User) -> None:
    order = place_order(user_id=admin_user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    NotificationFactory.create()
    OutboxEventFactory.create(headers=pack([("ce_id", b"\xff")]))
    record_dead_letter(record=kafka_record(b"\xffgarbage\0"), error=Poison("bad\0"), group="g")
    for model in ("orders/order", "notifications/notification", "events/outboxevent", "events/deadletter"):
        listed = admin_client.get(f"/admin/{model}/")
        assert listed.status_code == 200
        assert admin_client.get(f"/admin/{model}/add/").status_code == 403
    for model, row in (
        ("orders/order", order),
        ("notifications/notification", Notification.objects.first()),
        ("events/outboxevent", OutboxEvent.objects.first()),
        ("events/deadletter", DeadLetter.objects.first()),
    ):
        assert row is not None
        assert admin_client.get(f"/admin/{model}/{row.pk}/change/").status_code == 200
        assert admin_client.post(f"/admin/{model}/{row.pk}/change/", {}).status_code == 403
        assert admin_client.post(f"/admin/{model}/{row.pk}/delete/", {}).status_code == 403
