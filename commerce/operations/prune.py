"""Remove old outbox rows. A row goes once every group has handled its event: until then it is all there is."""

from collections.abc import Iterator
from datetime import datetime

from events.consuming.handled import is_settled
from events.consuming.subjects import complete_subjects
from events.database import in_steps
from events.models import OutboxEvent

ROWS_AT_ONCE = 5_000


def prune(*, published_before: datetime) -> Iterator[int]:
    """Work through the outbox, some thousand rows a transaction; yields how many of them were removed.

    Of a stream any row may go: where n is missing, n+1 counts it as published.
    """
    complete_subjects()
    for ids in in_steps(OutboxEvent.objects.all(), size=ROWS_AT_ONCE):
        old = OutboxEvent.objects.filter(pk__range=(ids[0], ids[-1]), published_at__lt=published_before)
        removed, _ = old.filter(is_settled(), parked_at=None).delete()
        yield removed
