"""Kafka record headers: how they are stored, and the ones every event of ours carries."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from events.correlation import REQUEST_ID_HEADER, current_traceparent, request_id
from events.timestamps import rfc3339

Header = tuple[str, bytes | None]
"""Name and value as on the wire. A null value can be read from Kafka, but not be sent by our client."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Header])


def pack(headers: Iterable[Header]) -> bytes:
    """MessagePack, because header values are arbitrary bytes and their order and repetition count."""
    return _encoder.encode(list(headers))


def unpack(packed: bytes | memoryview) -> list[Header]:
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
    """Headers of a CloudEvents 1.0 event in the Kafka binding's binary mode, with its W3C `traceparent`
    and the id of the request it comes from, if it comes from one.

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
