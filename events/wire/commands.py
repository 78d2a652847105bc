"""Commands to a participant of a process, and the participant's replies: their members and their JSON.

A process, such as a checkout, spans several apps. It sends each app commands, and goes on after their replies.
`reference` is the id of the process's subject, such as an order. A participant returns it without interpreting it.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID, uuid4

import msgspec

from events.troubles import Poison
from events.wire.headers import cloud_event_headers, pack
from events.wire.messages import Message
from events.wire.timestamps import Moment, now, rfc3339

STREAM_PREFIX: Final = "process-"
SUBJECT: Final = "reference"
"""Name of the JSON member with the id of the subject: what a command or reply is about."""

Reference = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def stream_of(reference: int) -> str:
    """Return the name of the outbox stream of commands with this reference. They are sent in sequence."""
    return f"{STREAM_PREFIX}{reference}"


class _Members(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    event_id: UUID
    timestamp: Moment
    command_id: UUID
    """Id of the command. All repeats of a command and all replies to it have the same id."""
    reference: Reference

    @property
    def stream(self) -> str:
        return stream_of(self.reference)

    @property
    def owner(self) -> None:
        """None, because a command and a reply belong to no user."""


class Command(_Members, frozen=True, kw_only=True, tag_field="eventType"):
    """The members of every command.

    The app of a participant has a subclass for each of its commands, with the event type as `tag`.
    """

    @property
    def event_type(self) -> str:
        return event_type_of(type(self))

    @property
    def undone_id(self) -> UUID | None:
        """Return the id of the command that this one undoes; None if it undoes none."""
        return None


class Reply(_Members, frozen=True, kw_only=True, rename="camel"):
    """A participant's reply to a command."""

    event_type: str
    reason: str = ""
    """The reason, for people, why the participant could not or would not do the command; otherwise empty."""


CommandT = TypeVar("CommandT", bound=Command)
_encoder = msgspec.json.Encoder(decimal_format="number")
_reply_decoder = msgspec.json.Decoder(Reply)


def event_type_of(command: type[Command]) -> str:
    return str(command.__struct_config__.tag)


def encode(message: Command | Reply) -> bytes:
    """Return `message` as UTF-8 JSON. The timestamp is RFC 3339 text with milliseconds. Amounts are exact numbers."""
    members: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(datetime, Decimal))
    return _encoder.encode(members | {"timestamp": rfc3339(message.timestamp)})


def decoder_of(commands: Any) -> Callable[[bytes | None], Any]:
    """Return the function that decodes a command from a record's value. It raises Poison for any other value.

    `commands` is a union of subclasses of `Command`, such as `ChargePayment | RefundPayment`.
    """
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(commands)

    def decode(value: bytes | None) -> Any:
        return _decoded(decoder, value, what="command")

    return decode


def decode_reply(value: bytes | None, *, event_types: Collection[str]) -> Reply:
    """Return the reply in a record's value. Unknown members of the JSON object are ignored.

    Raises:
        Poison: the value is no reply, or its type is not one of `event_types`.
    """
    reply: Reply = _decoded(_reply_decoder, value, what="reply")
    if reply.event_type not in event_types:
        raise Poison(f"Not a reply: unknown eventType {reply.event_type[:80]!r}")
    return reply


def reply_to(command: Command, event_type: str, *, reason: str = "") -> Reply:
    """Return a new reply to `command`."""
    return Reply(
        event_id=uuid4(),
        event_type=event_type,
        timestamp=now(),
        command_id=command.command_id,
        reference=command.reference,
        reason=reason,
    )


def message(body: Command | Reply, *, topic: str, source: str, sequence: int | None = None) -> Message:
    """Return the outbox message of a command or reply. `source` is the app that sends it, such as `/payments`.

    Messages with a `sequence` (1, 2, 3 ...) and the same reference are sent in this order, whatever their topic.
    """
    subject = str(body.reference)
    return Message(
        event_id=body.event_id,
        event_type=body.event_type,
        topic=topic,
        key=subject.encode(),
        value=encode(body),
        headers=pack(
            cloud_event_headers(
                event_id=body.event_id,
                event_type=body.event_type,
                source=source,
                time=body.timestamp,
                subject=subject,
                sequence=sequence,
            )
        ),
        stream=body.stream if sequence else None,
        sequence=sequence,
        created_at=body.timestamp,
    )


def _decoded(decoder: msgspec.json.Decoder[Any], value: bytes | None, *, what: str) -> Any:
    if value is None:
        raise Poison("The value is null")
    try:
        # msgspec skips unknown members without checking their UTF-8, so the whole value is decoded as text first.
        return decoder.decode(value.decode())
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise Poison(f"Not a {what}: {error}") from error
