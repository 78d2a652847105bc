"""Parts of an AsyncAPI 3 document: channels, operations, and the headers and keys of messages."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings

BINDING = "0.5.0"
"""Version of AsyncAPI's Kafka bindings."""
DIGITS = "^[0-9]+$"


def channel(topic: str, description: str, messages: list[str], **topic_binding: Any) -> dict[str, Any]:
    binding = {
        "topic": topic,
        "partitions": settings.KAFKA_TOPIC_PARTITIONS,
        "replicas": settings.KAFKA_TOPIC_REPLICATION,
        **topic_binding,
        "bindingVersion": BINDING,
    }
    return {
        "address": topic,
        "description": description,
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": binding},
    }


def operation(action: str, channel: str, message: str, **binding: str) -> dict[str, Any]:
    operation = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }
    if binding:
        constants = {name: {"type": "string", "enum": [value]} for name, value in binding.items()}
        operation["bindings"] = {"kafka": constants | {"bindingVersion": BINDING}}
    return operation


def keyed(description: str) -> dict[str, Any]:
    key = {"type": "string", "pattern": DIGITS, "description": description}
    return {"kafka": {"key": key, "bindingVersion": BINDING}}


def cloud_event(source: str, event_types: Sequence[str], *, with_sequence: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a message's headers: a CloudEvents 1.0 event in the Kafka binding's binary mode.

    With `with_sequence`, the headers include `ce_sequence`, the number of the event within its order.
    """
    attributes: dict[str, dict[str, Any]] = {
        "content-type": {"const": "application/json"},
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"format": "uuid", "description": "The `eventId`."},
        "ce_type": {"enum": list(event_types)},
        "ce_source": {"const": source},
        "ce_time": {"format": "date-time", "description": "The `timestamp`."},
        "ce_subject": {"pattern": DIGITS, "description": "The key."},
    }
    if with_sequence:
        attributes["ce_sequence"] = {"pattern": DIGITS, "description": "1, 2, 3 ... within the order."}
    attributes["traceparent"] = {
        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        "description": "W3C Trace Context of the request, or a new, unsampled one.",
    }
    described = strings(attributes)
    described["properties"]["x-request-id"] = {
        "type": "string",
        "description": "The `X-Request-ID` of the request that caused this event, if any.",
    }
    return described


def strings(properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    typed = {name: {"type": "string", **schema} for name, schema in properties.items()}
    return {"type": "object", "required": list(typed), "properties": typed}


def headers_of(payload: dict[str, Any], source: str, subject: str, *, sequence: str | None = None) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": payload["eventId"],
        "ce_type": payload["eventType"],
        "ce_source": source,
        "ce_time": payload["timestamp"],
        "ce_subject": subject,
        **({"ce_sequence": sequence} if sequence else {}),
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    }
