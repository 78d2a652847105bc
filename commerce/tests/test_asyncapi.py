"""The AsyncAPI document: well-formed, and true of what is really written and read."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.contrib.auth.models import User
from jsonschema import Draft202012Validator, FormatChecker
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.asyncapi import asyncapi
from events.correlation import about
from events.headers import unpack
from events.models import OutboxEvent
from events.topics import create_missing_topics
from notifications.services import read_notification
from orders.events import decode
from orders.services import pay_order
from orders.tests.test_api import order_of
from tests.factories import NotificationFactory

ANYTHING: dict[str, Any] = {"type": "object", "minProperties": 1}
REFERENCE = {
    "type": "object",
    "required": ["$ref"],
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
    "additionalProperties": False,
}


def named(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": r"^[\w.-]+$"},
        "additionalProperties": schema,
    }


def objects(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = objects(
    ["title", "contentType"],
    title=TEXT,
    description=TEXT,
    contentType=TEXT,
    headers=ANYTHING,
    payload=REFERENCE,
    bindings=objects(["kafka"], kafka=objects(["bindingVersion"], key=ANYTHING, bindingVersion=TEXT)),
    examples={
        "type": "array",
        "items": objects(["payload"], name=TEXT, summary=TEXT, headers=ANYTHING, payload=ANYTHING),
    },
)
STRUCTURE = objects(
    ["asyncapi", "info", "channels", "operations", "components"],
    asyncapi={"const": "3.0.0"},
    info=objects(["title", "version"], title=TEXT, version=TEXT, description=TEXT),
    defaultContentType=TEXT,
    servers=named(objects(["host", "protocol"], host=TEXT, protocol={"const": "kafka"}, variables=ANYTHING)),
    channels=named(
        objects(
            ["address", "messages"],
            address=TEXT,
            description=TEXT,
            servers={"type": "array", "items": REFERENCE},
            messages=named(REFERENCE),
            bindings=objects(
                ["kafka"],
                kafka=objects(
                    ["topic", "partitions", "replicas", "bindingVersion"],
                    topic=TEXT,
                    partitions={"type": "integer", "minimum": 1},
                    replicas={"type": "integer", "minimum": 1},
                    topicConfiguration=ANYTHING,
                    bindingVersion=TEXT,
                ),
            ),
        )
    ),
    operations=named(
        objects(
            ["action", "channel"],
            action={"enum": ["send", "receive"]},
            channel=REFERENCE,
            messages={"type": "array", "minItems": 1, "items": REFERENCE},
            bindings=objects(["kafka"], kafka=objects(["bindingVersion"], groupId=ANYTHING, bindingVersion=TEXT)),
        )
    ),
    components=objects(["messages", "schemas"], messages=named(MESSAGE), schemas=named(ANYTHING)),
)
"""What AsyncAPI 3.0.0 allows of the parts that this document has."""


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
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(instance)


def published(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schemas of a message's headers and of its payload."""
    document = asyncapi()
    message = document["components"]["messages"][name]
    return message["headers"], resolve(document, message["payload"]["$ref"])


def test_the_document_is_answered_without_a_token(anonymous: APIClient) -> None:
    response = anonymous.get("/api/asyncapi")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/vnd.aai.asyncapi+json;version=3.0.0"
    assert json.loads(response.content) == json.loads(json.dumps(asyncapi(), default=float))


def test_the_document_has_the_shape_of_asyncapi_3_and_every_reference_leads_somewhere() -> None:
    document = json.loads(json.dumps(asyncapi(), default=float))
    check(document, STRUCTURE)
    for reference in references(document):
        assert resolve(document, reference)


def test_the_topics_are_those_that_create_topics_makes(broker: object) -> None:
    channels = asyncapi()["channels"].values()
    assert {channel["address"] for channel in channels} == set(create_missing_topics())
    assert {channel["bindings"]["kafka"]["partitions"] for channel in channels} == {settings.KAFKA_TOPIC_PARTITIONS}


def test_the_topics_are_those_of_the_settings(settings: Settings) -> None:
    settings.ORDER_EVENTS_TOPIC, settings.KAFKA_TOPIC_PARTITIONS = "other", 12
    channels = asyncapi()["channels"]
    assert [channel["address"] for channel in channels.values()] == ["other", "other-dlt", "notification-events"]
    assert channels["deadLetters"]["bindings"]["kafka"]["partitions"] == 12


@pytest.mark.parametrize("name", ["orderEvent", "foreignOrderEvent"])
def test_the_consumer_reads_every_example_of_an_order_event(name: str) -> None:
    examples = asyncapi()["components"]["messages"][name]["examples"]
    read = {decode(json.dumps(example["payload"], default=float).encode()) for example in examples}
    assert len(read) == 1, "All of them say the same"


def test_the_consumer_reads_the_examples_as_they_stand_in_the_file() -> None:
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


@pytest.mark.django_db
def test_what_is_written_fits_the_document(user: User) -> None:
    with about([("x-request-id", b"shop-7")]):
        pay_order(order_id=order_of(user).pk)
        read_notification(notification_id=NotificationFactory.create(user_id=user.pk).pk, user_id=user.pk)
    written = {"order-events": "orderEvent", "notification-events": "notificationRead"}
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
