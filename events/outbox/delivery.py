"""Deliver one wave of recorded messages: send it to Kafka, and record the acknowledgements.

The publisher and the relay share this code.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction

from events.correlation import log_context
from events.database_clock import DatabaseClock
from events.kafka import Producer, Sent, Unsendable
from events.models import OutboxEvent
from events.observing import metrics, tracing
from events.outbox import recording as outbox
from events.wire.foreign_text import cut
from events.wire.headers import unpack
from events.wire.messages import Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The result of one wave: a batch of messages that are sent together."""

    published: list[Message]
    parked: list[Message]
    failed: list[Message]
    """Messages that an outage stopped; they stay pending."""
    error: Exception | None
    """The outage; None without one."""


def deliver(messages: Sequence[Message], *, producer: Producer, path: OutboxEvent.Path) -> Delivery:
    """Send `messages`, whose outbox rows must be sendable, and mark the acknowledged ones as published.

    After an outage a message stays pending. Only an error of the message itself parks it.
    """
    begun = tracing.now()
    outcomes = list(zip(messages, producer.send_all(messages), strict=True))
    published = [(message, outcome) for message, outcome in outcomes if isinstance(outcome, Sent)]
    parked = [(message, outcome) for message, outcome in outcomes if isinstance(outcome, Unsendable)]
    failed = [(message, outcome) for message, outcome in outcomes if not isinstance(outcome, Sent | Unsendable)]
    if published:
        marked = outbox.mark_published(
            messages=[message for message, _ in published],
            positions=[(sent.partition, sent.offset) for _, sent in published],
            path=path,
        )
        transaction.on_commit(lambda: _count_published(marked, path), robust=True)
        if tracing.is_on():
            transaction.on_commit(
                lambda: tracing.trace_sent(messages=published, path=path.value, begun=begun), robust=True
            )
    for message, error in parked:
        with log_context(unpack(message.headers)):
            park(message, reason=str(error))
    return Delivery(
        published=[message for message, _ in published],
        parked=[message for message, _ in parked],
        failed=[message for message, _ in failed],
        error=failed[0][1] if failed else None,
    )


def park(row: Message | OutboxEvent, *, reason: str) -> None:
    """Park an outbox row that can never be sent: neither the publisher nor the relay tries it again."""
    logger.error("Parked %s for topic %s, because it can never be sent: %s", row, row.topic, reason)
    OutboxEvent.objects.filter(event_id=row.event_id).update(parked_at=DatabaseClock(), parked_reason=cut(reason))
    metrics.parked_total.labels(row.topic).inc()


def _count_published(by_topic: Mapping[str, int], path: OutboxEvent.Path) -> None:
    for topic, count in by_topic.items():
        metrics.published_total.labels(topic, path.value).inc(count)
