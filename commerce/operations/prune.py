"""Clear the outbox of old rows whose event never has to be sent again, because no group needs it any more."""

from collections.abc import Iterator
from datetime import datetime

from django.db import transaction

from events.consuming.handled import is_settled
from events.consuming.subjects import complete_subjects
from events.database import Report, in_steps
from events.models import OutboxEvent
from orders.events import STREAM_PREFIX
from orders.history import move_to_history

BATCH_ROWS = 500
"""Largest number of rows that one transaction of `prune` checks. docs/history.md says how long it holds their locks."""


def prune(*, published_before: datetime, discards_history: bool = False, report: Report | None = None) -> Iterator[int]:
    """Move outbox rows of order events to the history, and delete all other outbox rows, once no group needs them.

    Only rows that were published before `published_before` are moved or deleted. Yield the number of moved and deleted
    rows of each batch. Each batch is a transaction, so after an interruption each event of an order still has its row,
    in the outbox or in the history. With `discards_history`, events of orders are deleted, and not moved.

    The rows of a stream may be deleted in any order, because the publisher of event n+1 treats a missing event n as
    published.
    """
    complete_subjects()
    for ids in in_steps(OutboxEvent.objects.all(), size=BATCH_ROWS, report=report):
        old = OutboxEvent.objects.filter(pk__range=(ids[0], ids[-1]), published_at__lt=published_before)
        settled = old.filter(is_settled(), parked_at=None)
        if discards_history:
            yield settled.delete()[0]
            continue
        with transaction.atomic():
            # The lock keeps a row from becoming pending again before it is moved.
            found = dict(settled.select_for_update().order_by("pk").values_list("pk", "stream"))
            of_orders = [pk for pk, stream in found.items() if stream and stream.startswith(STREAM_PREFIX)]
            moved = move_to_history(of_orders)
            deleted, _ = OutboxEvent.objects.filter(pk__in=found.keys() - of_orders).delete()
        yield moved + deleted
