"""Messages that can never be handled: kept in the database, copied to the topic's `-dlt` topic through the outbox."""

import hashlib
import struct
import traceback
from uuid import UUID, uuid4

import msgspec

from events import outbox
from events.headers import Header, pack
from events.kafka import Record
from events.models import DeadLetter, OutboxEvent
from events.timestamps import now

STACKTRACE_LIMIT = 8 * 1024
"""Bytes of stack trace that travel in the copy's header."""


class Poison(Exception):
    """A message that no retry can make readable."""


def dead_letter_topic(topic: str) -> str:
    return f"{topic}-dlt"


def record_dead_letter(*, record: Record, error: Exception, group: str) -> OutboxEvent | None:
    """Keep `record` as a dead letter of `group`, and record its copy for the `-dlt` topic, in the caller's transaction.

    Returns the copy's outbox row; None for a message that stands as a dead letter already.
    """
    created_at = now()
    headers = [(name, value) for name, value in record.headers]
    stacktrace = "".join(traceback.format_exception(error))
    letter, created = DeadLetter.objects.get_or_create(
        group=group,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        value_hash=hashlib.sha256(record.value or b"").digest(),
        defaults={
            "key": record.key,
            "value": record.value,
            "headers": pack(headers),
            "event_id": _event_id(record),
            "error_class": _class_name(error),
            "error_message": _storable(str(error)),
            "stacktrace": _storable(stacktrace),
            "created_at": created_at,
        },
    )
    if not created:
        return None
    # Our client cannot send a null header value, nor a null key with a null value.
    nulls = [f"header {name}" for name, value in headers if value is None]
    value = record.value
    if record.key is None and value is None:
        nulls.append("value")
        value = b""
    copied: list[Header] = [(name, b"" if content is None else content) for name, content in headers]
    copied += _spring_headers(record, error, stacktrace, group)
    if nulls:
        copied.append(("dead-letter-nulls", ", ".join(nulls).encode()))
    return outbox.record(
        event_id=uuid4(),
        event_type="DEAD_LETTER",
        topic=dead_letter_topic(letter.topic),
        partition=letter.partition,
        key=record.key,
        value=value,
        headers=copied,
        created_at=created_at,
    )


def _spring_headers(record: Record, error: Exception, stacktrace: str, group: str) -> list[Header]:
    """The headers of Spring Kafka's DeadLetterPublishingRecoverer, text in UTF-8 and numbers big-endian.

    Source: https://docs.spring.io/spring-kafka/reference/kafka/annotation-error-handling.html#dlpr-headers
    """
    return [
        ("kafka_dlt-original-topic", record.topic.encode()),
        ("kafka_dlt-original-partition", struct.pack(">i", record.partition)),
        ("kafka_dlt-original-offset", struct.pack(">q", record.offset)),
        ("kafka_dlt-original-timestamp", struct.pack(">q", record.timestamp)),
        ("kafka_dlt-original-timestamp-type", (b"CreateTime", b"LogAppendTime")[record.timestamp_type]),
        ("kafka_dlt-original-consumer-group", group.encode()),
        ("kafka_dlt-exception-fqcn", _class_name(error).encode()),
        ("kafka_dlt-exception-message", _bytes(str(error), 1024)),
        ("kafka_dlt-exception-stacktrace", _bytes(stacktrace, STACKTRACE_LIMIT)),
    ]


def _event_id(record: Record) -> UUID | None:
    """The event id that a message names in its `ce_id` header or in its body, if either can be read."""
    candidates = [value for name, value in record.headers if name == "ce_id"]
    try:
        body = msgspec.json.decode(record.value or b"", type=dict)
        candidates.append(str(body.get("eventId")).encode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # Not being readable is what made it a dead letter.
    for candidate in candidates:
        try:
            return UUID(candidate.decode())
        except (ValueError, AttributeError):
            continue
    return None


def _class_name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _bytes(text: str, limit: int) -> bytes:
    """UTF-8 of at most `limit` bytes, cut between characters."""
    encoded = text.encode(errors="backslashreplace")[:limit]
    return encoded.decode(errors="ignore").encode()


def _storable(text: str) -> str:
    """PostgreSQL's text holds neither NUL nor lone surrogates."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
