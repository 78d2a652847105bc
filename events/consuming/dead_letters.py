"""Messages that can never be handled: kept in the database, copied to the topic's `-dlt` topic through the outbox."""

import hashlib
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

import msgspec
from django.db import models, transaction

from events.consuming.redriven import with_spring_headers
from events.foreign_text import cut, stack_trace
from events.headers import Header, pack
from events.identifiers import id_or_none, uuid_or_none
from events.kafka import Record, Unreadable
from events.messages import Message
from events.models import DeadLetter
from events.outbox import recording as outbox
from events.subscriptions import dead_letter_topic, topic_named
from events.timestamps import now

STACKTRACE_LIMIT = 8 * 1024
"""Bytes of stack trace that travel in the copy's header."""
NULLS_LIMIT = 1024
"""Bytes of the copy's header that names what was null: names may be as long as a record."""
LETTER_ID_HEADER = "dead-letter-id"
"""Names, in a message that was sent to its topic again, the dead letter it comes from."""
EVENT_TYPE_LENGTH = 100
"""Characters."""
SUBJECT_IDS = range(-(2**63), 2**63)
"""What the database can hold."""

Value = TypeVar("Value")


@cache
def _named_in_body(subject: str) -> type[msgspec.Struct]:
    """Return a struct of what a message's body may say of its event; `subject` is the topic's member for that.

    All other members are skipped, because 2 MiB of JSON become 50 MiB of objects.
    """
    members = {"event_id": "eventId", "event_type": "eventType", "subject_id": subject or "subjectId"}
    raw = {name: msgspec.field(name=member, default=msgspec.Raw()) for name, member in members.items()}
    fields = [(name, msgspec.Raw, field) for name, field in raw.items()]
    return msgspec.defstruct("NamedInBody", fields)


class NotOpen(Exception):
    """A dead letter that is closed already."""


class Kept(NamedTuple):
    """What became of a message that was set aside."""

    is_news: bool
    """Whether the dead letter is new, or open again; False for one that was merely delivered once more."""
    copy: Message | None
    """The copy for the `-dlt` topic, of a new one."""

    @property
    def is_reopened(self) -> bool:
        """Whether the message was a replay that failed again."""
        return self.is_news and self.copy is None


class Named(NamedTuple):
    """The event that a message names."""

    event_id: UUID | None
    event_type: str
    """Empty where it names none."""
    subject_id: int | None
    """What the event is about. None unless the body itself names all three."""


def record_dead_letter(*, record: Record, error: Exception, group: str) -> Kept:
    """Keep `record` as a dead letter of `group`, and record its copy for the `-dlt` topic, in the caller's transaction.

    A replay that failed leaves its letter open instead, with the new reason. One whose letter was dismissed meanwhile,
    or is another group's, changes nothing.
    """
    stacktrace = stack_trace(error, lambda part: cut(_storable(part)))
    trouble = {
        "error_class": _class_name(error),
        "error_message": cut(_storable(str(error))),
        "stacktrace": stacktrace,
    }
    if (replayed := _replayed(record)).exists():
        failed = replayed.filter(group=group).exclude(state=DeadLetter.State.DISMISSED)
        changed = failed.update(state=DeadLetter.State.OPEN, closed_at=None, **trouble)
        return Kept(is_news=changed > 0, copy=None)
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
    return Kept(is_news=created, copy=copy)


def close_replayed(records: Iterable[Record], *, group: str) -> None:
    """Close the letters that `records`, which were handled now, come from, in the caller's transaction."""
    for record in records:
        if any(name == LETTER_ID_HEADER for name, _ in record.headers):
            _replayed(record).filter(group=group).update(state=DeadLetter.State.REPLAYED, closed_at=now())


def dismiss(*, letter_id: int) -> DeadLetter:
    """Close an open letter without its message being handled. Raises DeadLetter.DoesNotExist, NotOpen."""
    with transaction.atomic():
        letter = DeadLetter.objects.select_for_update().defer("key", "value", "headers", "stacktrace").get(pk=letter_id)
        if letter.state != DeadLetter.State.OPEN:
            raise NotOpen(f"Letter {letter.pk} ({letter}) is {letter.state} already, so that nothing is left to do.")
        letter.state = DeadLetter.State.DISMISSED
        letter.closed_at = now()
        letter.save(update_fields=["state", "closed_at"])
        return letter


def _replayed(record: Record) -> models.QuerySet[DeadLetter]:
    """The letter that `record` is a replay of, if it is one: it names the letter, and says the same."""
    for name, value in record.headers:
        if name == LETTER_ID_HEADER and (letter_id := id_or_none(_text(value))) is not None:
            return DeadLetter.objects.filter(pk=letter_id, topic=record.topic, value_hash=_hash(record.value))
    return DeadLetter.objects.none()


def _record_copy(letter: DeadLetter, record: Record, spring_headers: list[Header]) -> Message:
    all_headers = with_spring_headers(record.headers, spring_headers)
    # Our client cannot send a null header value, nor a null key with a null value.
    nulls = [f"header {name}" for name, value in all_headers if value is None]
    value = record.value if letter.is_readable else None
    if record.key is None and value is None:
        nulls.append("value")
        value = b""
    headers: list[Header] = [(name, b"" if content is None else content) for name, content in all_headers]
    named: Header = ("dead-letter-nulls", _bytes(", ".join(nulls), NULLS_LIMIT))
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


def named_event_type(record: Record) -> str:
    """As the message names it; empty where it names none."""
    return _identify(record).event_type


def _identify(record: Record) -> Named:
    """Return what the body names, and only what is missing there from the headers, which are for display alone."""
    in_body = _in_body(record.topic, record.value)
    headers = {name: _text(value) for name, value in record.headers}
    return Named(
        in_body.event_id or uuid_or_none(headers.get("ce_id", "")),
        in_body.event_type or _event_type(headers.get("ce_type", "")),
        in_body.subject_id if _is_whole(in_body) else None,
    )


def named_by_body(topic: str, value: bytes | None) -> Named | None:
    """Return the event that a message's body names by itself; None where it lacks the id, the type or the subject."""
    named = _in_body(topic, value)
    return named if _is_whole(named) else None


def _is_whole(named: Named) -> bool:
    return named.event_id is not None and named.event_type != "" and named.subject_id is not None


def _in_body(topic: str, value: bytes | None) -> Named:
    registered = topic_named(topic)
    kind = _named_in_body(registered.subject if registered else "")
    body: Any = kind()
    # Not being readable may be what made it a dead letter.
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = msgspec.json.decode(value or b"", type=kind)
    subject_id = _json_value(body.subject_id, int)
    return Named(
        uuid_or_none(_json_value(body.event_id, str) or ""),
        _event_type(_json_value(body.event_type, str) or ""),
        subject_id if subject_id is not None and subject_id in SUBJECT_IDS else None,
    )


def _json_value(raw: msgspec.Raw, kind: type[Value]) -> Value | None:
    """Return a JSON value of this kind; None for what is none."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _event_type(text: str) -> str:
    return text[:EVENT_TYPE_LENGTH] if text.isprintable() else ""


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _hash(value: bytes | None) -> bytes:
    return hashlib.sha256(value or b"").digest()


def _class_name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _bytes(text: str, limit: int) -> bytes:
    """UTF-8 of at most `limit` bytes, cut between characters, with a note where it was cut."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return encoded
    note = f"... (cut, of {len(encoded)} bytes)".encode()
    return encoded[: limit - len(note)].decode(errors="ignore").encode() + note


def _storable(text: str) -> str:
    """PostgreSQL's text holds neither NUL nor lone surrogates."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
