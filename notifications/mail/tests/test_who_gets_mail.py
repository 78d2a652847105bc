"""Which notifications get an e-mail delivery, and which recorded deliveries are cancelled instead of sent."""

import json
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db.models import F
from pytest_django import Settings

from events.consuming.replay import replay
from events.models import DeadLetter, OutboxEvent
from events.testing import deliver
from events.wire.timestamps import now
from events.work.models import LeasedWork
from events.work.outcomes import Cancelled
from notifications.mail import opting_out
from notifications.models import EmailDelivery, EmailOptOut, Notification
from notifications.subscriptions import NOTIFICATIONS, notify
from orders.events import encode
from testkit.factories import OrderEventFactory
from testkit.mail.deliveries import customer, notify_at, send_due
from testkit.mail.server import MailServer

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _server(server: MailServer) -> None:
    """Turn e-mails on for every test."""


def value(user: User, timestamp: str, **fields: Any) -> bytes:
    """Return the body of an order event of `user`, with `timestamp` in exactly this spelling."""
    event = json.loads(encode(OrderEventFactory.build(user_id=user.pk, **fields)))
    return json.dumps(event | {"timestamp": timestamp}).encode()


@pytest.mark.parametrize("age", [timedelta(0), timedelta(minutes=-5), DAY - timedelta(minutes=1)])
def test_a_recent_event_is_mailed(age: timedelta) -> None:
    assert notify_at(customer().pk, now() - age) is not None


@pytest.mark.parametrize("age", [DAY, DAY + timedelta(seconds=1), timedelta(days=365)])
def test_an_old_event_is_not_mailed(age: timedelta) -> None:
    assert notify_at(customer().pk, now() - age) is None
    assert Notification.objects.count() == 1


def test_the_age_is_a_setting(settings: Settings) -> None:
    settings.EMAIL_MAX_AGE = timedelta(minutes=10)
    assert notify_at(customer().pk, now() - timedelta(minutes=11)) is None
    delivery = notify_at(customer().pk, now() - timedelta(minutes=4))
    assert delivery is not None
    assert delivery.deadline_at is not None
    assert abs(delivery.deadline_at - (now() + timedelta(minutes=6))) < timedelta(minutes=1)


def test_old_and_new_events_in_one_batch_are_told_apart() -> None:
    user = customer()
    new, old = (
        OrderEventFactory.build_batch(3, user_id=user.pk, timestamp=moment) for moment in (now(), now() - 2 * DAY)
    )
    notify([event for pair in zip(new, old, strict=True) for event in pair])
    mailed = EmailDelivery.objects.values_list("notification__event_id", flat=True)
    assert set(mailed) == {event.event_id for event in new}
    assert Notification.objects.count() == 6


def test_a_second_delivery_of_an_event_is_not_mailed() -> None:
    event = OrderEventFactory.build(user_id=customer().pk, timestamp=now())
    later = msgspec.structs.replace(event, timestamp=now() + timedelta(seconds=1))
    notify([event, event, later])
    notify([later])
    assert EmailDelivery.objects.count() == 1


def test_an_event_notified_without_mail_is_not_mailed_later(settings: Settings) -> None:
    event = OrderEventFactory.build(user_id=customer().pk, timestamp=now())
    settings.EMAIL_ENABLED = False
    notify([event])
    settings.EMAIL_ENABLED = True
    notify([event])
    assert not EmailDelivery.objects.exists()


def opt_out(user: User) -> None:
    EmailOptOut.objects.create(user=user)


def deactivate(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def clear_address(user: User) -> None:
    User.objects.filter(pk=user.pk).update(email="")


def delete(user: User) -> None:
    User.objects.filter(pk=user.pk).delete()


CHANGES = [opt_out, deactivate, clear_address, delete]


@pytest.mark.parametrize("change", CHANGES)
def test_a_user_who_cannot_or_will_not_get_mail_gets_none(change: Any) -> None:
    user = customer()
    change(user)
    assert notify_at(user.pk) is None
    assert Notification.objects.filter(user_id=user.pk).count() == 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_mail_that_is_not_wanted_any_more_is_cancelled(change: Any, server: MailServer) -> None:
    user = customer()
    delivery = notify_at(user.pk)
    assert delivery is not None
    change(user)
    ((_, outcome),) = send_due()
    assert isinstance(outcome, Cancelled)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_error) == (LeasedWork.State.CANCELLED, outcome.reason)
    assert server.connections_made == 0


def test_turning_mails_on_again_mails_new_events_only(server: MailServer) -> None:
    user = customer()
    opting_out.set_wanted(user.pk, wanted=False)
    notify_at(user.pk)
    opting_out.set_wanted(user.pk, wanted=True)
    assert send_due() == []
    notify_at(user.pk)
    send_due()
    assert len(server.accepted) == 1


def test_an_unknown_user_gets_no_mail() -> None:
    assert notify_at(2**63 - 1) is None
    assert notify_at(-(2**63)) is None
    assert Notification.objects.count() == 2


def test_without_a_mail_server_the_notification_stands(settings: Settings) -> None:
    settings.EMAIL_ENABLED = False
    assert notify_at(customer().pk) is None
    assert Notification.objects.count() == 1


@pytest.mark.parametrize(
    "timestamp", ["0001-01-01T00:00:00Z", "0001-01-01T23:59:59+23:59", "1969-12-31T23:59:59.999-12:00"]
)
def test_an_event_of_long_ago_is_notified_and_not_mailed(timestamp: str) -> None:
    user = customer()
    assert deliver(NOTIFICATIONS, [value(user, timestamp), value(user, timestamp)]) == []
    assert Notification.objects.count() == 2
    assert not EmailDelivery.objects.exists()


@pytest.mark.parametrize(
    "timestamp", ["9999-12-31T23:59:59.999Z", "9999-12-31T00:00:00+23:59", "2999-01-01T00:00:00.000-23:59"]
)
def test_an_event_of_the_future_has_a_deadline_from_today(timestamp: str, server: MailServer) -> None:
    user = customer()
    old = value(user, "0001-01-01T00:00:00Z")
    assert deliver(NOTIFICATIONS, [value(user, timestamp), old]) == []
    row: Any = EmailDelivery.objects.annotate(after=F("deadline_at") - F("created_at")).get()
    assert abs(row.after - DAY) < timedelta(minutes=1)
    send_due()
    assert len(server.accepted) == 1


def test_a_flood_of_old_events_mails_nobody(server: MailServer) -> None:
    users = [customer() for _ in range(10)]
    old = [value(user, "2025-01-30T10:15:30.123Z") for user in users for _ in range(50)]
    assert deliver(NOTIFICATIONS, old) == []
    assert Notification.objects.count() == 500
    assert not EmailDelivery.objects.exists()


@pytest.mark.parametrize(("timestamp", "mails"), [(now() - 2 * DAY, 0), (now(), 1)], ids=["old", "new"])
def test_a_replay_of_an_old_dead_letter_mails_nobody(timestamp: datetime, mails: int) -> None:
    """The event's own time decides whether a mail is sent. A second replay of a new event sends no second mail."""
    event = OrderEventFactory.build(user_id=customer().pk, timestamp=timestamp)
    assert len(deliver(NOTIFICATIONS, [encode(event).replace(b"50000.00", b'"much"')])) == 1
    letter = DeadLetter.objects.get()
    DeadLetter.objects.update(value=encode(event))
    for _ in range(2):
        DeadLetter.objects.update(state=DeadLetter.State.OPEN)
        assert replay(letter_id=letter.pk).obstacle is None
        sent = OutboxEvent.objects.latest("pk")
        assert deliver(NOTIFICATIONS, [bytes(sent.value)]) == []
    assert Notification.objects.count() == 1
    assert EmailDelivery.objects.count() == mails


def test_one_sweep_sends_what_is_due(server: MailServer, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        notify_at(customer().pk)
    call_command("send_emails", "--once")
    assert capsys.readouterr().out == "sent 3\n"
    assert len(server.accepted) == 3


def test_an_incomplete_sweep_ends_with_the_first_reason(server: MailServer) -> None:
    server.fail("RCPT", answer="550 no such user", times=1)
    for _ in range(2):
        notify_at(customer().pk)
    with pytest.raises(CommandError, match=r"1 could not be sent.*550"):
        call_command("send_emails", "--once")
    assert len(server.accepted) == 1


def test_a_sweep_without_a_mail_server_sends_nothing(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    notify_at(customer().pk)
    settings.EMAIL_ENABLED = False
    call_command("send_emails", "--once")
    output = capsys.readouterr()
    assert output.out == "sent 0\n"
    assert "EMAIL_URL is not set" in output.err
    with pytest.raises(CommandError, match="EMAIL_URL is not set"):
        call_command("work", "email", "--once")
    assert EmailDelivery.objects.pending().count() == 1
