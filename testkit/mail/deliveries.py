"""E-mail deliveries for tests, and settings of a mail server."""

from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models.functions import Now
from pytest_django import Settings

from commerce.environment import Environment
from events.database_clock import database_now
from events.wire.timestamps import now
from events.work.kinds import Results
from events.work.worker import Worker
from notifications.models import EmailDelivery
from notifications.subscriptions import notify
from notifications.work import EMAIL
from testkit.factories import OrderEventFactory, UserFactory


def use_mail_server(settings: Settings, url: str) -> None:
    """Change the settings so that this process sends mails to the server with this EMAIL_URL."""
    settings.EMAIL_ENABLED = True
    for name, value in Environment({"EMAIL_URL": url}).email("EMAIL_URL").items():
        setattr(settings, name, value)
    settings.DEFAULT_FROM_EMAIL = "가게 <shop@shop.example>"
    settings.SITE_URL = "https://shop.example"


def customer(email: str = "", **fields: Any) -> User:
    """Return a new user with this e-mail address, by default an address that no other user has."""
    user = UserFactory.create(**fields)
    User.objects.filter(pk=user.pk).update(email=email or f"{user.username}@example.com")
    user.refresh_from_db()
    return user


def notify_at(user_id: int, timestamp: datetime | None = None, **fields: Any) -> EmailDelivery | None:
    """Notify a user of a new event with this time (by default now). Return the e-mail delivery, if one was recorded."""
    event = OrderEventFactory.build(user_id=user_id, timestamp=timestamp or now(), **fields)
    notify([event])
    return EmailDelivery.objects.filter(notification__event_id=event.event_id).first()


def delivery_to(email: str = "") -> EmailDelivery:
    """Return a new e-mail delivery to a new customer. `email` is the customer's address; by default it is unique."""
    delivery = notify_at(customer(email).pk)
    assert delivery is not None
    return delivery


def send_due() -> Results[EmailDelivery]:
    """Send all due e-mails in this process, and return the outcomes.

    Raises ServiceUnavailable if the mail server is not available.
    """
    worker = Worker(EMAIL, stopping=lambda: False, wait=lambda _: None)
    return worker.sweep(due_until=database_now())


def let_pauses_pass() -> None:
    """Make every pending delivery due."""
    EmailDelivery.objects.pending().update(due_at=Now())
