"""Remove old outbox rows. An event goes once it was handled, and never before: until then its row is all there is."""

from collections.abc import Iterator
from datetime import datetime

from django.conf import settings
from django.db.models import Exists, Max, OuterRef, Q

from commerce.operations.handled import letters_of_row, notifications_of_row
from events.consuming.replay import REPLAY
from events.models import DeadLetter, OutboxEvent
from events.subjects import complete_subjects

ROWS_AT_ONCE = 5_000


def prune(*, published_before: datetime) -> Iterator[int]:
    """Work through the outbox, some thousand rows a transaction; yields how many of them were removed.

    Of a stream any row may go: where n is missing, n+1 counts it as published.
    """
    complete_subjects()
    newest = OutboxEvent.objects.aggregate(newest=Max("pk"))["newest"] or 0
    all_ids = OutboxEvent.objects.filter(pk__lte=newest).order_by("pk").values_list("pk", flat=True)
    last = 0
    while ids := list(all_ids.filter(pk__gt=last)[:ROWS_AT_ONCE]):
        old = OutboxEvent.objects.filter(pk__range=(ids[0], ids[-1]), published_at__lt=published_before)
        removed, _ = old.filter(_is_handled(), parked_at=None).delete()
        yield removed
        last = ids[-1]


def _is_handled() -> Q:
    """Return the condition of rows whose event the notifications' group has handled.

    Events of other topics than order-events have no handler here.
    """
    open_letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN)
    letters = letters_of_row(group=settings.NOTIFICATION_CONSUMER_GROUP)
    return (
        Q(event_type=REPLAY) & ~Exists(open_letters.filter(pk=OuterRef("dead_letter")))
        | ~Q(event_type=REPLAY) & ~Q(topic=settings.ORDER_EVENTS_TOPIC)
        | Exists(notifications_of_row())
        | Exists(letters) & ~Exists(letters.filter(state=DeadLetter.State.OPEN))
    )
