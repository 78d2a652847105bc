"""The AsyncAPI document is valid and matches the messages that the code writes and reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from jsonschema import Draft202012Validator, FormatChecker
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.api.asyncapi import asyncapi
from events.correlation import log_context
from events.kafka.topics import create_missing_topics
from events.models import OutboxEvent
from events.wire import commands
from events.wire.headers import unpack
from events.wire.timestamps import now
from notifications.services import read_notification
from orders.events import decode
from orders.services import pay_order
from orders.tests.test_api import order_of
from payments import messages as payments
from sales.anomalies.judging import record
from sales.anomalies.rules import SURGE, Finding
from shipping import messages as shipping
from shipping.messages import SHIPMENT_FAILED
from testkit.factories import NotificationFactory


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for nested in node:
            yield from references(nested)


def resolve(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return resolve(asyncapi(), document["$ref"]) if "$ref" in document else document


def check(instance: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    # References within a schema are relative to the document.
    schema = schema | {"components": asyncapi()["components"]}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(instance)


def published(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of the headers and of the payload of the message `name` in the AsyncAPI document."""
    document = asyncapi()
    message = document["components"]["messages"][name]
    return message["headers"], resolve(document, message["payload"]["$ref"])


def test_the_document_is_answered_without_a_token(anonymous: APIClient) -> None:
    response = anonymous.get("/api/asyncapi")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/vnd.aai.asyncapi+json;version=3.0.0"
    assert json.loads(response.content) == json.loads(json.dumps(asyncapi(), default=float))


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
def test_an_invalid_asyncapi_document_is_not_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    call_command("asyncapi", "--validate", file=tmp_path / "good.yaml")
    bad = asyncapi()
    bad["operations"]["publishOrderEvents"]["action"] = "publish"
    monkeypatch.setattr("commerce.api.asyncapi.asyncapi", lambda: bad)
    with pytest.raises(CommandError, match="publishOrderEvents"):
        call_command("asyncapi", "--validate", file=tmp_path / "bad.yaml")
    assert [written.name for written in tmp_path.iterdir()] == ["good.yaml"]


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi()
    for reference in references(document):
        assert resolve(document, reference)


def test_the_topics_are_those_of_create_topics(broker: object) -> None:
    channels = asyncapi()["channels"].values()
    assert {channel["address"] for channel in channels} == set(create_missing_topics())
    assert {channel["bindings"]["kafka"]["partitions"] for channel in channels} == {settings.KAFKA_TOPIC_PARTITIONS}


def test_the_topics_are_those_of_the_settings(settings: Settings) -> None:
    settings.ORDER_EVENTS_TOPIC, settings.KAFKA_TOPIC_PARTITIONS = "other", 12
    channels = asyncapi()["channels"]
    assert [channel["address"] for channel in channels.values()][:4] == [
        "other",
        "other-dlt",
        "notification-events",
        "sales-events",
    ]
    assert channels["deadLetters"]["bindings"]["kafka"]["partitions"] == 12


@pytest.mark.parametrize("name", ["orderEvent", "foreignOrderEvent"])
def test_the_consumer_reads_every_example_of_an_order_event(name: str) -> None:
    examples = asyncapi()["components"]["messages"][name]["examples"]
    read = {decode(json.dumps(example["payload"], default=float).encode()) for example in examples}
    assert len(read) == 1, "All of them say the same"


def test_the_consumer_reads_the_documents_examples() -> None:
    document = yaml.safe_load((settings.BASE_DIR / "docs" / "asyncapi.yaml").read_text())
    for message in document["components"]["messages"].values():
        for example in message.get("examples", []):
            if "orderId" in example["payload"]:
                assert decode(json.dumps(example["payload"]).encode()).order_id == 123


def test_every_example_fits_its_own_schemas() -> None:
    document = json.loads(json.dumps(asyncapi(), default=float))
    for message in document["components"]["messages"].values():
        for example in message.get("examples", []):
            check(example["payload"], resolve(document, message["payload"]["$ref"]))
            if "headers" in example:
                check(example["headers"], message["headers"])


@pytest.mark.parametrize(
    ("name", "decode_command"),
    [
        ("chargePayment", payments.decode),
        ("refundPayment", payments.decode),
        ("bookShipment", shipping.decode),
        ("cancelShipment", shipping.decode),
    ],
)
def test_participants_read_the_examples_of_their_commands(name: str, decode_command: Any) -> None:
    (example,) = asyncapi()["components"]["messages"][name]["examples"]
    command = decode_command(msgspec.json.Encoder(decimal_format="number").encode(example["payload"]))
    assert command.event_type == example["payload"]["eventType"]
    # What a participant writes about it is as documented, too.
    for reply_name, reply_type in (("paymentReply", payments.PAYMENT_FAILED), ("shippingReply", SHIPMENT_FAILED)):
        headers, payload = published(reply_name)
        sent = commands.message(
            commands.reply_to(command, reply_type, reason="gone"), topic="t", source=headers_source(headers)
        )
        check(json.loads(sent.value or b""), payload)
        check({key: (text or b"").decode() for key, text in unpack(sent.headers)}, headers | {"required": []})
    encoded = {**json.loads(payments.encode(command))}
    check(encoded, resolve(asyncapi(), f"#/components/schemas/{type(command).__name__}"))


def headers_source(headers: dict[str, Any]) -> str:
    return str(headers["properties"]["ce_source"]["const"])


@pytest.mark.django_db
def test_written_messages_fit_the_document(user: User) -> None:
    with log_context([("x-request-id", b"shop-7")]):
        record(Finding(SURGE, 10, 13, 12_345, 100.5), now())
        pay_order(order_id=order_of(user).pk)
        read_notification(notification_id=NotificationFactory.create(user_id=user.pk).pk, user_id=user.pk)
    written = {
        "order-events": "orderEvent",
        "notification-events": "notificationRead",
        "sales-events": "salesAnomalyDetected",
    }
    rows = list(OutboxEvent.objects.all())
    assert {row.topic for row in rows} == set(written)
    for row in rows:
        headers, payload = published(written[row.topic])
        sent = {name: (value or b"").decode() for name, value in unpack(row.headers)}
        check(sent, headers)
        assert set(sent) == set(headers["properties"]), "No header more, none less"
        body = json.loads(bytes(row.value or b""))
        check(body, payload)
        assert set(body) == set(payload["properties"])
