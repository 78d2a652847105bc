"""Remove old outbox rows. An event goes once it was handled, and never before: until then its row is all there is."""

from collections.abc import Iterator
from datetime import datetime

from django.conf import settings
from django.db.models import Exists, OuterRef, Q

from commerce.operations.handled import letters_of_row, notifications_of_row
from events.consuming.replay import REPLAY
from events.database import in_steps
from events.models import DeadLetter, OutboxEvent

ROWS_AT_ONCE = 5_000


def prune(*, published_before: datetime) -> Iterator[int]:
    """Work through the outbox, some thousand rows a transaction; yields how many of them were removed.

    Of a stream any row may go: where n is missing, n+1 counts it as published.
    """
    for ids in in_steps(OutboxEvent.objects.all(), size=ROWS_AT_ONCE):
        old = OutboxEvent.objects.filter(pk__range=(ids[0], ids[-1]), published_at__lt=published_before)
        removed, _ = old.filter(_is_handled(), parked_at=None).delete()
        yield removed


def _is_handled() -> Q:
    """Of other topics than order-events nobody here is to handle anything."""
    open_letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN)
    return (
        Q(event_type=REPLAY) & ~Exists(open_letters.filter(pk=OuterRef("dead_letter")))
        | ~Q(event_type=REPLAY) & ~Q(topic=settings.ORDER_EVENTS_TOPIC)
        | Exists(notifications_of_row())
        | Exists(letters_of_row()) & ~Exists(letters_of_row().filter(state=DeadLetter.State.OPEN))
    )
