"""The AsyncAPI 3 document of the Kafka topics and their messages, generated from the message structs and the settings.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0, and its Kafka bindings, version 0.5.0.
"""

from decimal import Decimal
from typing import Annotated, Any

import msgspec
import yaml
from django.conf import settings

from commerce.api import asyncapi_commands
from commerce.api.asyncapi_parts import channel, cloud_event, headers_of, keyed, operation, strings
from events.kafka import MAX_MESSAGE_BYTES
from events.subscriptions import dead_letter_topic
from events.wire.timestamps import Moment
from notifications.events import NOTIFICATION_READ, NotificationRead
from orders.events import ORDER_EVENT_TYPES, OrderEvent, WireEvent
from sales.events import SALES_ANOMALY_DETECTED, SalesAnomalyDetected

UUID = "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55"
TIMESTAMP = "2025-01-30T10:15:30.123Z"

EVENT = {
    "eventId": UUID,
    "eventType": "ORDER_CREATED",
    "timestamp": TIMESTAMP,
    "orderId": 123,
    "userId": 45,
    "totalAmount": Decimal("50000.00"),
}
READING = {
    "eventId": UUID,
    "eventType": "NOTIFICATION_READ",
    "timestamp": TIMESTAMP,
    "notificationId": 678,
    "userId": 45,
}
ANOMALY = {
    "eventId": UUID,
    "eventType": "SALES_ANOMALY_DETECTED",
    "timestamp": TIMESTAMP,
    "anomalyId": 12,
    "rule": "SURGE",
    "from": "2025-01-30T10:00:00.000Z",
    "to": "2025-01-30T10:15:00.000Z",
    "observed": Decimal("1250000.00"),
    "usual": Decimal("240000.00"),
}


class PublishedOrderEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """A committed change of an order."""

    timestamp: Moment
    # msgspec would describe a Decimal as a string, its default encoding.
    total_amount: Annotated[float, msgspec.Meta(ge=0, description="With exactly two decimals.")]  # type: ignore[assignment]


class PublishedAnomaly(SalesAnomalyDetected, frozen=True, kw_only=True, rename="camel"):
    """Sales that are far from the usual for their time."""

    observed: Annotated[  # type: ignore[assignment]
        float,
        msgspec.Meta(
            description=(
                "Of a SURGE the amount of created orders, of CANCELLATIONS the number of cancelled orders for each "
                "created one, of a SILENCE the number of created orders, which is 0."
            )
        ),
    ]
    usual: Annotated[float, msgspec.Meta(description="The median of the same measure in earlier weeks.")]  # type: ignore[assignment]


def asyncapi() -> dict[str, Any]:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Commerce events",
            "version": "1.0.0",
            "description": (
                "Every committed change of an order is an event on Kafka, at least once. Readers see the events of one "
                "order in sequence: `ce_sequence` 1, then 2, then 3. Repeats may follow, with the same `eventId`. "
                "Readers must ignore unknown fields and headers."
            ),
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrapServers}",
                "protocol": "kafka",
                "variables": {
                    "bootstrapServers": {"description": "The value of `KAFKA_BOOTSTRAP_SERVERS`: host:port,host:port."}
                },
            }
        },
        "channels": {
            "orderEvents": channel(
                settings.ORDER_EVENTS_TOPIC,
                "Changes of orders. Other services may also write to this topic.",
                ["orderEvent", "foreignOrderEvent"],
            ),
            "deadLetters": channel(
                dead_letter_topic(settings.ORDER_EVENTS_TOPIC),
                "Messages that could not be handled, with the headers of Spring Kafka. They keep their partition "
                "number; if this topic has fewer partitions, the key decides.",
                ["deadLetter"],
                topicConfiguration={"max.message.bytes": MAX_MESSAGE_BYTES},
            ),
            "notificationEvents": channel(
                settings.NOTIFICATION_EVENTS_TOPIC, "Changes of notifications.", ["notificationRead"]
            ),
            "salesEvents": channel(settings.SALES_EVENTS_TOPIC, "Anomalies of sales.", ["salesAnomalyDetected"]),
            **asyncapi_commands.channels(),
        },
        "operations": {
            "publishOrderEvents": operation("send", "orderEvents", "orderEvent"),
            "consumeOrderEvents": operation(
                "receive", "orderEvents", "foreignOrderEvent", groupId=settings.NOTIFICATION_CONSUMER_GROUP
            ),
            "publishDeadLetters": operation("send", "deadLetters", "deadLetter"),
            "publishNotificationEvents": operation("send", "notificationEvents", "notificationRead"),
            "publishSalesEvents": operation("send", "salesEvents", "salesAnomalyDetected"),
            **asyncapi_commands.operations(),
        },
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def as_yaml() -> str:
    return yaml.dump(asyncapi(), Dumper=_ExactDumper, sort_keys=False, allow_unicode=True, width=120)


def _messages() -> dict[str, Any]:
    return {
        "orderEvent": {
            "title": "An order was created, paid or cancelled",
            "contentType": "application/json",
            "headers": cloud_event("/orders", ORDER_EVENT_TYPES, with_sequence=True),
            "payload": {"$ref": "#/components/schemas/PublishedOrderEvent"},
            "bindings": keyed("The order id in decimal digits."),
            "examples": [
                {"name": "created", "headers": headers_of(EVENT, "/orders", "123", sequence="1"), "payload": EVENT}
            ],
        },
        "foreignOrderEvent": {
            "title": "An order event from any producer",
            "description": (
                "Headers and key are optional. An event with a known `eventId` is a duplicate if its user, order and "
                "type are the same; other fields are not compared. A message that does not match becomes a dead letter."
            ),
            "contentType": "application/json",
            "payload": {"$ref": "#/components/schemas/WireEvent"},
            "examples": [
                {"name": "ours", "payload": EVENT},
                {
                    "name": "spring",
                    "summary": "From a Spring JsonSerializer with default settings.",
                    "payload": EVENT | {"timestamp": Decimal("1738232130.123000000")},
                },
                {
                    "name": "lenient",
                    "summary": "Another offset, an amount as text, an unknown field.",
                    "payload": EVENT
                    | {"timestamp": "2025-01-30T19:15:30.123+09:00", "totalAmount": "50000", "channel": "web"},
                },
            ],
        },
        "deadLetter": {
            "title": "An unchanged message, and why it could not be handled",
            "description": (
                "Key, value and headers are those of the message, byte for byte. The headers of Spring Kafka follow: "
                "the ones below as UTF-8, and in big-endian binary `kafka_dlt-original-partition` (int32), "
                "`kafka_dlt-original-offset` and `kafka_dlt-original-timestamp` (int64). A part that the client cannot "
                "send as null is empty and named in `dead-letter-nulls`. A message that already has these headers "
                "keeps its `kafka_dlt-original-*`; the exception headers describe the latest failure."
            ),
            "contentType": "application/octet-stream",
            "headers": strings(
                {
                    "kafka_dlt-original-topic": {},
                    "kafka_dlt-original-consumer-group": {},
                    "kafka_dlt-original-timestamp-type": {"enum": ["CreateTime", "LogAppendTime"]},
                    "kafka_dlt-exception-fqcn": {},
                    "kafka_dlt-exception-message": {},
                    "kafka_dlt-exception-stacktrace": {"description": "At most 8 KiB."},
                }
            ),
        },
        "notificationRead": {
            "title": "A notification was read",
            "contentType": "application/json",
            "headers": cloud_event("/notifications", [NOTIFICATION_READ]),
            "payload": {"$ref": "#/components/schemas/NotificationRead"},
            "bindings": keyed("The notification id in decimal digits."),
            "examples": [{"name": "read", "headers": headers_of(READING, "/notifications", "678"), "payload": READING}],
        },
        "salesAnomalyDetected": {
            "title": "Sales are far from the usual for their time",
            "description": "A rule finds an interval once, so that there is one event for each rule and `from`.",
            "contentType": "application/json",
            "headers": cloud_event("/sales", [SALES_ANOMALY_DETECTED]),
            "payload": {"$ref": "#/components/schemas/PublishedAnomaly"},
            "bindings": keyed("The anomaly id in decimal digits."),
            "examples": [{"name": "surge", "headers": headers_of(ANOMALY, "/sales", "12"), "payload": ANOMALY}],
        },
        **asyncapi_commands.messages(),
    }


def _schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(
        (PublishedOrderEvent, WireEvent, NotificationRead, PublishedAnomaly, *asyncapi_commands.STRUCTS),
        ref_template="#/components/schemas/{name}",
    )
    return schemas


class _ExactDumper(yaml.SafeDumper):
    """A YAML dumper that writes each Decimal as a number with exactly its digits.

    It writes a repeated value in full each time. PyYAML would use anchors, which are hard to read.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


_ExactDumper.add_representer(
    Decimal, lambda dumper, amount: dumper.represent_scalar("tag:yaml.org,2002:float", str(amount))
)
