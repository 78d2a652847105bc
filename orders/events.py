"""The vocabulary of orders: the types and fields of an order event, and their JSON.

Another app needs only this module of orders to subscribe to these events and to decode them.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, Literal, get_args
from uuid import UUID

import msgspec

from events.subscriptions import Topic, register_topic
from events.troubles import Poison
from events.wire.encodings import byte_order_mark, schema_registry_frame
from events.wire.timestamps import has_leap_second, rfc3339

ORDER_CREATED: Final = "ORDER_CREATED"
ORDER_PAID: Final = "ORDER_PAID"
ORDER_CANCELLED: Final = "ORDER_CANCELLED"
OrderEventType = Literal["ORDER_CREATED", "ORDER_PAID", "ORDER_CANCELLED"]
ORDER_EVENT_TYPES: tuple[OrderEventType, ...] = get_args(OrderEventType)

STREAM_PREFIX = "order-"

ORDER_EVENTS = register_topic(
    Topic(
        setting="ORDER_EVENTS_TOPIC",
        event_types=ORDER_EVENT_TYPES,
        subject="orderId",
        stream_prefix=STREAM_PREFIX,
    )
)

BigInt = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that fits into a PostgreSQL bigint."""

AMOUNT_DIGITS = 26
"""Largest number of digits before the point of an amount.

With 2 decimals, such an amount fills the default precision of `decimal`, 28 digits. The amount of the largest possible
order has 18 digits before the point.
"""
TIMESTAMP_DIGITS = 12
"""Largest number of digits before the point of a timestamp in epoch seconds, as in the year 9999.

A number with more digits, such as `1e999999999`, must not become an int, which would fill the memory.
"""

CENT = Decimal("0.01")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
JSON_TEXT_AMOUNT = re.compile(rb'"-?[0-9]+(\.[0-9]+)?"')


TimestampSpellings = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="RFC 3339 with any offset, or epoch seconds, with which Spring writes an `Instant`.",
        extra_json_schema={"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]},
    ),
]
AmountSpellings = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="A number in any spelling, or a string of digits; at most 2 decimals once normalised.",
        extra_json_schema={"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}]},
    ),
]


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A committed change of an order."""

    event_id: UUID
    event_type: OrderEventType
    timestamp: datetime
    order_id: BigInt
    user_id: BigInt
    total_amount: Decimal

    @property
    def stream(self) -> str:
        return stream_of(self.order_id)

    @property
    def owner(self) -> int:
        return self.user_id


def stream_of(order_id: int) -> str:
    """Return the name of the outbox stream that keeps the events of one order in sequence."""
    return f"{STREAM_PREFIX}{order_id}"


class WireEvent(msgspec.Struct, rename="camel"):
    """The JSON object of an order event, from any producer."""

    # Fields with more than one spelling stay raw in this struct.
    event_id: UUID
    event_type: OrderEventType
    timestamp: TimestampSpellings
    order_id: BigInt
    user_id: BigInt
    total_amount: AmountSpellings


_encoder = msgspec.json.Encoder()
_wire_decoder = msgspec.json.Decoder(WireEvent)
_timestamp_decoder = msgspec.json.Decoder(datetime)


def encode(event: OrderEvent) -> bytes:
    """Return `event` as UTF-8 JSON, with two decimals in the amount and milliseconds in the timestamp."""
    return _encoder.encode(
        WireEvent(
            event_id=event.event_id,
            event_type=event.event_type,
            timestamp=msgspec.Raw(f'"{rfc3339(event.timestamp)}"'.encode()),
            order_id=event.order_id,
            user_id=event.user_id,
            total_amount=msgspec.Raw(f"{event.total_amount:.2f}".encode()),
        )
    )


def decode(value: bytes | None) -> OrderEvent:
    """Return the order event in a record's value, from any producer. Unknown fields are ignored.

    The timestamp is RFC 3339 with any UTC offset, or epoch seconds as a number, as Spring writes an `Instant`. The
    amount is a JSON number in any notation, or a string such as `"-12.50"` without an exponent.

    Raises:
        Poison: the value is not a valid order event. The message names the fault.
    """
    if value is None:
        raise Poison("The value is null")
    try:
        # msgspec skips unknown fields without checking their UTF-8, so the whole value is decoded as text first.
        wire = _wire_decoder.decode(value.decode())
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise Poison(_refusal(value, error)) from error
    return OrderEvent(
        event_id=wire.event_id,
        event_type=wire.event_type,
        timestamp=_timestamp(bytes(wire.timestamp)),
        order_id=wire.order_id,
        user_id=wire.user_id,
        total_amount=_amount(bytes(wire.total_amount)),
    )


def _refusal(value: bytes, error: Exception) -> str:
    """Return why `value` cannot be decoded.

    The reason is a byte order mark or a schema registry's frame if `value` begins with one of them, else `error`.
    """
    if mark := byte_order_mark(value):
        return f"Not an order event: it begins with {mark}. Write UTF-8 without it"
    if frame := schema_registry_frame(value):
        return f"Not an order event: it begins with {frame}. Write plain JSON, without the registry's serializer"
    kind = "Not UTF-8" if isinstance(error, UnicodeDecodeError) else "Not an order event"
    return f"{kind}: {error}"


def _timestamp(raw: bytes) -> datetime:
    try:
        if raw.startswith(b'"'):
            moment = _timestamp_decoder.decode(raw)
            if moment.tzinfo is None:
                raise Poison(f"timestamp has no offset: {raw.decode()}")
            return moment.astimezone(UTC)
        seconds = Decimal(raw.decode())
        if seconds.adjusted() >= TIMESTAMP_DIGITS:
            raise Poison(f"timestamp is beyond the year 9999: {raw[:80].decode()}")
        return EPOCH + timedelta(microseconds=int(seconds * 1_000_000))
    except (msgspec.DecodeError, InvalidOperation, OverflowError) as error:
        if has_leap_second(raw.decode()):
            raise Poison(f"timestamp has second 60, which is not accepted; write 59: {raw[:80].decode()}") from error
        raise Poison(f"timestamp is neither RFC 3339 nor epoch seconds: {raw[:80].decode()}") from error


def _amount(raw: bytes) -> Decimal:
    if raw.startswith(b'"') and not JSON_TEXT_AMOUNT.fullmatch(raw):
        raise Poison(f"totalAmount is not a number: {raw[:80].decode()}")
    try:
        amount = Decimal(raw.decode().strip('"'))
    except InvalidOperation as error:
        raise Poison(f"totalAmount is not a number: {raw[:80].decode()}") from error
    if not amount:
        return Decimal("0.00")
    if amount.adjusted() >= AMOUNT_DIGITS:
        raise Poison(f"totalAmount has more than {AMOUNT_DIGITS} whole digits: {raw[:80].decode()}")
    cents = amount.quantize(CENT)
    if cents != amount:
        raise Poison(f"totalAmount has more than 2 decimals: {raw[:80].decode()}")
    return cents
