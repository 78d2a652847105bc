"""Deliver outbox rows: send a wave to Kafka, record what was acknowledged. Publisher and relay share it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction

from events import metrics, outbox, tracing
from events.correlation import about
from events.headers import unpack
from events.kafka import Producer, Sent, Unsendable
from events.models import OutboxEvent
from events.timestamps import now

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of one wave."""

    published: list[OutboxEvent]
    parked: list[OutboxEvent]
    failed: list[OutboxEvent]
    """Rows an outage kept; they stay pending."""
    error: Exception | None
    """The outage, if there was one."""


def deliver(rows: Sequence[OutboxEvent], *, producer: Producer, path: OutboxEvent.Path) -> Delivery:
    """Send `rows` and record the acknowledged ones.

    Every row must be sendable. An outage leaves a row pending; only an error of the row itself parks it.
    """
    begun = tracing.now()
    outcomes = list(zip(rows, producer.send_all(rows), strict=True))
    published = [(row, outcome) for row, outcome in outcomes if isinstance(outcome, Sent)]
    parked = [(row, outcome) for row, outcome in outcomes if isinstance(outcome, Unsendable)]
    failed = [(row, outcome) for row, outcome in outcomes if not isinstance(outcome, Sent | Unsendable)]
    if published:
        marked = outbox.mark_published(
            rows=[row for row, _ in published],
            positions=[(sent.partition, sent.offset) for _, sent in published],
            path=path,
        )
        transaction.on_commit(lambda: _count_published(marked, path), robust=True)
        if tracing.is_on():
            transaction.on_commit(
                lambda: tracing.trace_sent(messages=published, path=path.value, begun=begun), robust=True
            )
    for row, error in parked:
        with about(unpack(row.headers)):
            logger.error("Parked %s for %s, it can never be sent: %s", row, row.topic, error)
        OutboxEvent.objects.filter(event_id=row.event_id).update(parked_at=now(), parked_reason=str(error))
        metrics.parked_total.labels(row.topic).inc()
    return Delivery(
        published=[row for row, _ in published],
        parked=[row for row, _ in parked],
        failed=[row for row, _ in failed],
        error=failed[0][1] if failed else None,
    )


def _count_published(by_topic: Mapping[str, int], path: OutboxEvent.Path) -> None:
    for topic, count in by_topic.items():
        metrics.published_total.labels(topic, path.value).inc(count)
