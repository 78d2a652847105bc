"""Admin hides the secret members of a message in the outbox, in dead letters, and in commands."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from events.admin.stored_messages import MAX_SHOWN_BYTES
from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from payments.messages import PAYMENT_COMMANDS
from shipping.messages import SHIPPING_COMMANDS
from testkit.factories import OutboxEventFactory, kafka_record

pytestmark = pytest.mark.django_db

SECRET = "tok_of_a_card"
VALUES = {
    "a command": b'{"amount":50000.10,"paymentToken":"tok_of_a_card"}',
    "another spelling": b'{"amount":50000.10,"payment_token":"tok_of_a_card"}',
    "an escaped name": b'{"amount":50000.10,"payment\\u0054oken":"tok_of_a_card"}',
    "no text": b'{"amount":50000.10,"paymentToken":["tok_of_a_card"]}',
    "twice": b'{"amount":50000.10,"paymentToken":"tok_of_a_card","paymentToken":"tok_of_a_card"}',
    "within another": b'{"amount":50000.10,"command": [{"paymentToken":"tok_of_a_card"}]}',
}
NO_OBJECTS = {
    "a string": b'"tok_of_a_card"',
    "a list": b'[{"paymentToken":"tok_of_a_card"}]',
    "cut": b'{"paymentToken":"tok_of_a_card"',
    "no UTF-8": b'{"paymentToken":"tok_of_a_card\xff"}',
    "deep": b'{"a":' * 10_000 + b'{"paymentToken":"tok_of_a_card"}' + b"}" * 10_000,
    "large": json.dumps({"paymentToken": SECRET, "more": "x" * MAX_SHOWN_BYTES}).encode(),
}


@pytest.fixture
def support(client: Client) -> Client:
    user = User.objects.create_user("worker", is_staff=True)
    user.groups.add(Group.objects.get(name="support"))
    client.force_login(user)
    return client


def pages(client: Client, value: bytes, topic: str) -> list[str]:
    """Save a message with this value in the outbox and as a dead letter, and return the HTML of their pages in admin.

    The outbox row that sends a copy of the dead letter to the dead letter topic has a page, too.
    """
    OutboxEventFactory(topic=topic, value=value)
    record_dead_letter(record=kafka_record(value, topic=topic), error=Poison("no command"), group="payments")
    rows: list[Any] = [*OutboxEvent.objects.all(), *DeadLetter.objects.all()]
    assert len(rows) == 3
    return [
        client.get(f"/admin/events/{row._meta.model_name}/{row.pk}/change/", follow=True).content.decode()
        for row in rows
    ]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_secret_member_is_hidden_and_the_rest_shown(support: Client, value: bytes) -> None:
    for page in pages(support, value, PAYMENT_COMMANDS.name):
        assert SECRET not in page
        assert "50000.10" in page


@pytest.mark.parametrize("value", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_of_a_value_that_is_no_object_only_the_size_is_shown(support: Client, value: bytes) -> None:
    for page in pages(support, value, PAYMENT_COMMANDS.name):
        assert SECRET not in page
        assert f"size in bytes: {len(value)})" in page


def test_a_topic_without_secrets_is_shown_as_it_is(support: Client) -> None:
    for page in pages(support, VALUES["a command"], SHIPPING_COMMANDS.name):
        assert SECRET in page
