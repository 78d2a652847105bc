"""Dead letters: messages that can never be handled.

They are stored in the database, and copied to the topic's `-dlt` topic through the outbox.
"""

import hashlib
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

import msgspec
from django.db import models, transaction
from django.db.models.functions import Length

from events.consuming.attempts import record_failure
from events.consuming.redriven import with_spring_headers
from events.kafka import Record, Unreadable, has_header
from events.models import DeadLetter
from events.outbox import recording as outbox
from events.subscriptions import dead_letter_topic, topic_named
from events.wire.foreign_text import cut, stack_trace, storable
from events.wire.headers import Header, pack
from events.wire.identifiers import id_or_none, uuid_or_none
from events.wire.messages import Message
from events.wire.timestamps import now

STACKTRACE_LIMIT_BYTES = 8 * 1024
"""Largest stack trace in a header of a dead letter's copy, in bytes."""
NULLS_LIMIT_BYTES = 1024
"""Largest value of the header `dead-letter-nulls` in a dead letter's copy, in bytes. A longer value is cut.

The Kafka client cannot send a header whose value is null, nor a null value without a key. The copy has empty values
instead, and this header names them. It may be long, because it contains names of headers.
"""
LETTER_ID_HEADER = "dead-letter-id"
"""Name of the header in which a replay has the id of its dead letter."""
COUNT_HEADER = "replay-count"
"""Name of the header of a replayed message that says how often its dead letter has been replayed, this time included.

The value is a decimal number.
"""
EVENT_TYPE_LIMIT_CHARS = 100
"""Largest number of characters of a stored event type. A longer one is cut."""
SUBJECT_BODY_LIMIT_BYTES = 64 * 1024
"""Largest body that `subject_named_by` reads, in bytes."""
SUBJECT_IDS = range(-(2**63), 2**63)
"""Subject ids that fit into PostgreSQL's bigint."""

Value = TypeVar("Value")


@cache
def _body_struct(subject: str) -> type[msgspec.Struct]:
    """Return a struct for the members of a JSON body that identify its event. `subject` is `Topic.subject`.

    Decoding into this struct skips all other members: 2 MiB of JSON would otherwise become 50 MiB of Python objects.
    """
    members = {"event_id": "eventId", "event_type": "eventType", "subject_id": subject or "subjectId"}
    raw = {name: msgspec.field(name=member, default=msgspec.Raw()) for name, member in members.items()}
    fields = [(name, msgspec.Raw, field) for name, field in raw.items()]
    return msgspec.defstruct("NamedInBody", fields)


class NotOpen(Exception):
    """A dead letter cannot be dismissed, because it is already closed."""

    def __init__(self, letter: DeadLetter) -> None:
        super().__init__(f"Letter {letter.pk} ({letter}) is {letter.state} already, so there is nothing to do.")
        self.letter = letter


class RecordedLetter(NamedTuple):
    """The result of recording a dead letter."""

    is_new_or_reopened: bool
    """Whether the letter is new, or a replay of it has failed. False if nothing changed, as when Kafka repeats the
    original message."""
    copy: Message | None
    """The copy of a new letter, which will be sent to the `-dlt` topic; None if the letter is not new."""

    @property
    def is_reopened(self) -> bool:
        """Whether the message was a failed replay, whose letter is now open with the new error."""
        return self.is_new_or_reopened and self.copy is None


class NamedEvent(NamedTuple):
    """The event that a message names in its body or headers: its id, type and subject."""

    event_id: UUID | None
    event_type: str
    """Type of the event; empty if the message names no type."""
    subject_id: int | None
    """Id of the event's subject, such as an order. Only the body can name it, not a header. None if unknown."""


def record_dead_letter(*, record: Record, error: Exception, group: str) -> RecordedLetter:
    """Store `record` as a dead letter of `group`, and its copy for the `-dlt` topic, in the caller's transaction.

    A failed replay of a letter of `group` makes no new letter. It stores the new error in the replayed letter, and
    opens that letter if it is closed. A letter that was dismissed stays unchanged. A failed replay of another group's
    letter makes a new letter, unless `group` already has a letter of the original record.
    """
    stacktrace = stack_trace(error, lambda part: cut(storable(part)))
    reason = {"error_class": _class_name(error), "error_message": cut(storable(str(error)))}
    trouble = {**reason, "stacktrace": stacktrace}
    if _has_letter_of(_replayed(record), group):
        failed = _replayed(record).filter(group=group).exclude(state=DeadLetter.State.DISMISSED)
        changed = failed.update(state=DeadLetter.State.OPEN, closed_at=None, **trouble)
        record_failure(failed, number=_number_in(record.headers, COUNT_HEADER), **reason)
        return RecordedLetter(is_new_or_reopened=changed > 0, copy=None)
    is_readable = not isinstance(record.value, Unreadable)
    named = _identify(record)
    letter, created = DeadLetter.objects.get_or_create(
        group=group,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        value_hash=_hash(record.value),
        defaults={
            "key": record.key,
            "value": record.value if is_readable else None,
            "headers": pack(record.headers),
            "is_readable": is_readable,
            **named._asdict(),
            "created_at": now(),
            **trouble,
        },
    )
    copy = _record_copy(letter, record, _spring_headers(record, error, stacktrace, group)) if created else None
    return RecordedLetter(is_new_or_reopened=created, copy=copy)


def close_replayed(records: Iterable[Record], *, group: str) -> None:
    """Mark as replayed the letters of `group`, even dismissed ones, whose replays are among `records`.

    The caller's transaction has handled `records`.
    """
    for record in records:
        if has_header(record.headers, LETTER_ID_HEADER):
            _replayed(record).filter(group=group).update(state=DeadLetter.State.REPLAYED, closed_at=now())


def dismiss(*, letter_id: int) -> DeadLetter:
    """Close an open letter without handling its message. Raises DeadLetter.DoesNotExist, NotOpen."""
    with transaction.atomic():
        letter = DeadLetter.objects.select_for_update().defer("key", "value", "headers", "stacktrace").get(pk=letter_id)
        if letter.state != DeadLetter.State.OPEN:
            raise NotOpen(letter)
        letter.state = DeadLetter.State.DISMISSED
        letter.closed_at = now()
        letter.save(update_fields=["state", "closed_at"])
        return letter


def _replayed(record: Record) -> models.QuerySet[DeadLetter]:
    """Return a query for the dead letter, of any group, that `record` claims to replay.

    A header of `record` has the letter's id. The letter is found only if it has the topic and the value of `record`.
    """
    letter_id = _number_in(record.headers, LETTER_ID_HEADER)
    if letter_id is None:
        return DeadLetter.objects.none()
    return DeadLetter.objects.filter(pk=letter_id, topic=record.topic, value_hash=_hash(record.value))


def _number_in(headers: Iterable[Header], wanted: str) -> int | None:
    """Return the number in the first header named `wanted` whose value is a number; None without such a header."""
    numbers = (id_or_none(_text(value)) for name, value in headers if name == wanted)
    return next((number for number in numbers if number is not None), None)


def _has_letter_of(replayed: models.QuerySet[DeadLetter], group: str) -> bool:
    """Return whether `group` has a dead letter of the record that a message claims to replay.

    The query `replayed` finds a dead letter of this record, of any group, by the id in a header of the message. Any
    program may write any id into this header, so the header alone does not prove that the message is a replay.
    """
    original = replayed.values("topic", "partition", "offset", "timestamp", "value_hash").first()
    return original is not None and DeadLetter.objects.filter(group=group, **original).exists()


def _record_copy(letter: DeadLetter, record: Record, spring_headers: list[Header]) -> Message:
    all_headers = with_spring_headers(record.headers, spring_headers)
    # The client can send neither a null header value nor a null key with a null value.
    nulls = [f"header {name}" for name, value in all_headers if value is None]
    value = record.value if letter.is_readable else None
    if record.key is None and value is None:
        nulls.append("value")
        value = b""
    headers: list[Header] = [(name, b"" if content is None else content) for name, content in all_headers]
    named: Header = ("dead-letter-nulls", _limited_utf8(", ".join(nulls), NULLS_LIMIT_BYTES))
    if nulls and named not in headers:
        headers.append(named)
    return outbox.record(
        Message(
            event_id=uuid4(),
            event_type="DEAD_LETTER",
            topic=dead_letter_topic(letter.topic),
            partition=letter.partition,
            key=record.key,
            value=value,
            headers=pack(headers),
            created_at=letter.created_at,
        )
    )


def _spring_headers(record: Record, error: Exception, stacktrace: str, group: str) -> list[Header]:
    """Return the headers of Spring Kafka's DeadLetterPublishingRecoverer: text in UTF-8, numbers big-endian.

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
        ("kafka_dlt-exception-message", _limited_utf8(str(error), 1024)),
        ("kafka_dlt-exception-stacktrace", _limited_utf8(stacktrace, STACKTRACE_LIMIT_BYTES)),
    ]


def event_type_of(record: Record) -> str:
    """Return the event type that the body or the headers name; an empty string without one."""
    return _identify(record).event_type


def _identify(record: Record) -> NamedEvent:
    """Return the event that `record` names. The headers supply an id or type that the body lacks, only for display.

    The subject id is None unless the body names all three of the event's id, type and subject.
    """
    in_body = _in_body(record.topic, record.value)
    headers = {name: _text(value) for name, value in record.headers}
    return NamedEvent(
        in_body.event_id or uuid_or_none(headers.get("ce_id", "")),
        in_body.event_type or _event_type(headers.get("ce_type", "")),
        in_body.subject_id if _is_complete(in_body) else None,
    )


def event_named_in_body(topic: str, value: bytes | None) -> NamedEvent | None:
    """Return the event that a message's body names; None if the body lacks the id, the type or the subject."""
    named = _in_body(topic, value)
    return named if _is_complete(named) else None


def subject_named_by(letter: DeadLetter) -> int | None:
    """Return the id of the letter's subject, such as an order; None if neither the row nor the body has this id.

    A body that lacks the event's id or type may still have the subject's id. A body above `SUBJECT_BODY_LIMIT_BYTES` is
    not read. Any program may have written the id, so the subject may not exist.
    """
    if letter.subject_id is not None:
        return letter.subject_id
    small = DeadLetter.objects.alias(size=Length("value")).filter(pk=letter.pk, size__lte=SUBJECT_BODY_LIMIT_BYTES)
    value = small.values_list("value", flat=True).first()
    return None if value is None else _in_body(letter.topic, bytes(value)).subject_id


def _is_complete(named: NamedEvent) -> bool:
    return named.event_id is not None and named.event_type != "" and named.subject_id is not None


def _in_body(topic: str, value: bytes | None) -> NamedEvent:
    registered = topic_named(topic)
    kind = _body_struct(registered.subject if registered else "")
    body: Any = kind()
    # Invalid JSON may be the reason for the dead letter.
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = msgspec.json.decode(value or b"", type=kind)
    subject_id = _json_value(body.subject_id, int)
    return NamedEvent(
        uuid_or_none(_json_value(body.event_id, str) or ""),
        _event_type(_json_value(body.event_type, str) or ""),
        subject_id if subject_id is not None and subject_id in SUBJECT_IDS else None,
    )


def _json_value(raw: msgspec.Raw, kind: type[Value]) -> Value | None:
    """Return a JSON value as an instance of `kind`; None for a missing or invalid value, or one of another type."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _event_type(text: str) -> str:
    return text[:EVENT_TYPE_LIMIT_CHARS] if text.isprintable() else ""


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _hash(value: bytes | None) -> bytes:
    return hashlib.sha256(value or b"").digest()


def _class_name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _limited_utf8(text: str, limit: int) -> bytes:
    """Return at most `limit` bytes of UTF-8. A longer text is cut between characters, and ends with a note."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return encoded
    note = f"... (cut, of {len(encoded)} bytes)".encode()
    return encoded[: limit - len(note)].decode(errors="ignore").encode() + note
