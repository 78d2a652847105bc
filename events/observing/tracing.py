"""Spans of sent and processed messages, within the traces of their events, if the project has configured a tracer.

A span is created after its work, with the time at which the work started. So a failed attempt at a batch leaves no
span.

Names and attributes: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

import time
from collections.abc import Iterable, Sequence

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from events.correlation import trace_context
from events.kafka import Record, Sent
from events.wire.foreign_text import cut
from events.wire.headers import unpack
from events.wire.messages import Message


def is_on() -> bool:
    """Return whether the project has configured a tracer."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def now() -> int:
    """Return the current time in nanoseconds since 1970, the unit of spans."""
    return time.time_ns()


def trace_sent(*, messages: Iterable[tuple[Message, Sent]], path: str, begun: int) -> None:
    """Create a span for each of `messages`, which Kafka has just acknowledged.

    `path` is the path of the messages to Kafka, `fast` or `relay`. `begun` is the time at which sending them began, in
    nanoseconds since 1970.
    """
    for message, sent in messages:
        span = _tracer().start_span(
            f"send {message.topic}",
            context=trace_context(unpack(message.headers)),
            kind=SpanKind.PRODUCER,
            start_time=begun,
            attributes={
                **_destination("send", message.topic, sent.partition, sent.offset, message.key),
                "messaging.message.id": str(message.event_id),
                "outbox.path": path,
            },
        )
        span.end()


def trace_processed(*, records: Sequence[Record], group: str, begun: int, saving: int) -> None:
    """Create the spans of records that `group` has just handled.

    `begun` is when the group began to decode the batch, and `saving` when it began to save the events. Both are in
    nanoseconds since 1970.
    """
    for record in records:
        span = _process_span(record, group, begun)
        child = _tracer().start_span(f"save {group}", context=trace.set_span_in_context(span), start_time=saving)
        child.end()
        span.end()


def trace_failed(*, record: Record, group: str, error: Exception) -> None:
    """Create the span of a record that has become a dead letter of `group`."""
    span = _process_span(record, group, now())
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, cut(str(error))))
    span.end()


def _process_span(record: Record, group: str, begun: int) -> Span:
    return _tracer().start_span(
        f"process {record.topic}",
        context=trace_context(record.headers),
        kind=SpanKind.CONSUMER,
        start_time=begun,
        attributes={
            **_destination("process", record.topic, record.partition, record.offset, record.key),
            "messaging.consumer.group.name": group,
        },
    )


def _destination(
    operation: str, topic: str, partition: int, offset: int, key: bytes | None
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
    }
    if key is not None:
        attributes["messaging.kafka.message.key"] = cut(key.decode(errors="backslashreplace"))
    return attributes


def _tracer() -> trace.Tracer:
    return trace.get_tracer("events")
