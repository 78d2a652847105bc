"""Deliver one wave (a batch of recorded messages): send it to Kafka, and record the acknowledgements.

The publisher and the relay share this code.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import connection, transaction

from events.correlation import log_context
from events.database_clock import DatabaseClock
from events.kafka import Producer, Sent, Unsendable
from events.models import OutboxEvent
from events.observing import metrics, tracing
from events.wire.foreign_text import cut
from events.wire.headers import unpack
from events.wire.messages import Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The result of delivering one wave (a batch of messages that are sent together)."""

    published: list[Message]
    parked: list[Message]
    failed: list[Message]
    """Messages that Kafka did not acknowledge because of an outage. They stay pending."""
    error: Exception | None
    """The outage: the error of the first failed message. None if no message failed."""


def deliver(messages: Sequence[Message], *, producer: Producer, path: OutboxEvent.Path) -> Delivery:
    """Send `messages`, and mark the acknowledged ones as published by `path`, the fast path or the relay.

    The outbox rows of `messages` must be among those of `OutboxQuerySet.sendable`. A message that Kafka does not
    acknowledge because of an outage stays pending. Only an error of the message itself parks it.
    """
    begun = tracing.now()
    outcomes = list(zip(messages, producer.send_all(messages), strict=True))
    published = [(message, outcome) for message, outcome in outcomes if isinstance(outcome, Sent)]
    parked = [(message, outcome) for message, outcome in outcomes if isinstance(outcome, Unsendable)]
    failed = [(message, outcome) for message, outcome in outcomes if not isinstance(outcome, Sent | Unsendable)]
    if published:
        marked = mark_published(
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


def mark_published(
    *, messages: Sequence[Message], positions: Sequence[tuple[int, int]], path: OutboxEvent.Path
) -> Counter[str]:
    """Mark the outbox rows of `messages` as published by `path`. Return the number of newly marked rows by topic.

    `positions` has the (partition, offset) of each message, in the order of `messages`.

    One UPDATE marks all rows. It locks them in the order of their event ids, because two processes that mark the same
    rows in different orders would deadlock. A row that is already marked keeps its first position.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH acknowledged AS (
                SELECT * FROM unnest(%s::uuid[], %s::int[], %s::bigint[]) AS a (event_id, partition, "offset")
            ), locked AS (
                SELECT event_id FROM events_outboxevent
                WHERE event_id IN (SELECT event_id FROM acknowledged) AND published_at IS NULL
                ORDER BY event_id FOR UPDATE
            )
            UPDATE events_outboxevent AS row
            SET published_at = clock_timestamp(), published_path = %s,
                published_partition = acknowledged.partition, published_offset = acknowledged."offset"
            FROM acknowledged JOIN locked USING (event_id)
            WHERE row.event_id = acknowledged.event_id
            RETURNING row.topic
            """,
            [
                [str(message.event_id) for message in messages],
                [partition for partition, _ in positions],
                [offset for _, offset in positions],
                path,
            ],
        )
        return Counter(topic for (topic,) in cursor)


def park(row: Message | OutboxEvent, *, reason: str) -> None:
    """Park an outbox row that can never be sent, so that neither the publisher nor the relay tries it again."""
    logger.error("Parked %s for topic %s, because it can never be sent: %s", row, row.topic, reason)
    OutboxEvent.objects.filter(event_id=row.event_id).update(parked_at=DatabaseClock(), parked_reason=cut(reason))
    metrics.parked_total.labels(row.topic).inc()


def _count_published(by_topic: Mapping[str, int], path: OutboxEvent.Path) -> None:
    for topic, count in by_topic.items():
        metrics.published_total.labels(topic, path.value).inc(count)
