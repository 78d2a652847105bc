"""Kafka record headers: their storage format, and the headers of every event that this project publishes."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from events.correlation import REQUEST_ID_HEADER, current_traceparent, request_id
from events.wire.timestamps import rfc3339

Header = tuple[str, bytes | None]
"""Name and value of a header as on the wire. The client reads null values, but cannot send them."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Header])


def pack(headers: Iterable[Header]) -> bytes:
    """Return `headers` as MessagePack, which keeps arbitrary bytes, the order and repeated names."""
    return _encoder.encode(list(headers))


def unpack(packed: bytes | memoryview) -> list[Header]:
    """Return the headers that `pack` encoded."""
    return _decoder.decode(packed)


def cloud_event_headers(
    *,
    event_id: UUID,
    event_type: str,
    source: str,
    time: datetime,
    subject: str | None = None,
    sequence: int | None = None,
) -> list[Header]:
    """Return the headers of a CloudEvents 1.0 event in the Kafka binding's binary mode.

    They include the current W3C `traceparent` and, within a request, the request id.

    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
    """
    attributes = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": str(event_id),
        "ce_type": event_type,
        "ce_source": source,
        "ce_time": rfc3339(time),
        "ce_subject": subject,
        "ce_sequence": None if sequence is None else str(sequence),
        "traceparent": current_traceparent(),
        REQUEST_ID_HEADER: request_id.get() or None,
    }
    return [(name, value.encode()) for name, value in attributes.items() if value is not None]
