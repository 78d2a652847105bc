"""Delete old outbox rows whose event every group has handled. Until then the row may be needed to send it again."""

from collections.abc import Iterator
from datetime import datetime

from events.consuming.handled import is_settled
from events.consuming.subjects import complete_subjects
from events.database import in_steps
from events.models import OutboxEvent

BATCH_ROWS = 5_000
"""Rows that one transaction of `prune` looks at."""


def prune(*, published_before: datetime) -> Iterator[int]:
    """Delete handled rows in batches, one transaction each. Yield the number of rows deleted in each batch.

    Any row of a stream may be deleted: the publisher of event n+1 treats a missing event n as published.
    """
    complete_subjects()
    for ids in in_steps(OutboxEvent.objects.all(), size=BATCH_ROWS):
        old = OutboxEvent.objects.filter(pk__range=(ids[0], ids[-1]), published_at__lt=published_before)
        removed, _ = old.filter(is_settled(), parked_at=None).delete()
        yield removed
