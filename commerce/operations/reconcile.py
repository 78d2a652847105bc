"""Find order changes and events that got lost between two systems, and send them again."""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, Max, Q

from commerce.operations.handled import events_of, letters_of, letters_of_row, notifications_of, notifications_of_row
from events.consuming.replay import REPLAY
from events.database_clock import database_now
from events.kafka.cluster import Offsets, Viewer
from events.models import OutboxEvent
from events.outbox import recording as outbox
from events.subjects import complete_subjects
from orders.models import Order
from orders.services import record_lost_event

ORDERS_AT_ONCE = 5_000


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What got lost. What is merely not read yet is lag, and not here."""

    changes: list[tuple[int, int]]
    """(order id, sequence) of changes without an outbox row."""
    events: list[UUID]
    """Ids of published events that the group will never read, with neither notification nor dead letter of its own."""

    def __len__(self) -> int:
        return len(self.changes) + len(self.events)


def find_missing(*, group: str) -> Missing:
    """Raises KafkaUnreachable."""
    started_at = database_now()
    viewer = Viewer(group=group)
    try:
        # Before the database is asked: whatever is committed below these offsets has been saved by then.
        offsets = viewer.offsets(settings.ORDER_EVENTS_TOPIC)
    finally:
        viewer.close()
    complete_subjects()
    return Missing(
        changes=_changes_without_row(group=group), events=_events_never_handled(offsets, started_at, group=group)
    )


def repair(missing: Missing) -> int:
    """Make everything missing pending again under its own event id, for the relay to send; how much that was."""
    with transaction.atomic():
        for order_id, sequence in missing.changes:
            record_lost_event(order_id=order_id, sequence=sequence)
        return len(missing.changes) + outbox.send_again(missing.events)


def _changes_without_row(*, group: str) -> list[tuple[int, int]]:
    """Some thousand orders at a time, because where old rows were pruned most changes have none."""
    newest = Order.objects.aggregate(newest=Max("pk"))["newest"] or 0
    orders = Order.objects.filter(pk__lte=newest).order_by("pk").values_list("pk", flat=True)
    changes = []
    last = 0
    while ids := list(orders.filter(pk__gt=last)[:ORDERS_AT_ONCE]):
        changes += _unhandled(_without_row(ids[0], ids[-1]), group=group)
        last = ids[-1]
    return changes


def _without_row(first: int, last: int) -> list[tuple[int, int]]:
    """Changes of the orders from `first` to `last` that have no outbox row."""
    # With OFFSET each change is looked up in the index. Else the whole outbox would be read, and that for every call,
    # because PostgreSQL takes generate_series for a thousand rows.
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT placed.id, change.sequence
            FROM orders_order AS placed, generate_series(1, placed.last_sequence) AS change (sequence)
            WHERE placed.id BETWEEN %s AND %s AND NOT EXISTS (
                SELECT FROM events_outboxevent AS event
                WHERE event.stream = 'order-' || placed.id AND event.sequence = change.sequence
                OFFSET 0
            )
            ORDER BY placed.id, change.sequence
            """,
            [first, last],
        )
        return cursor.fetchall()


def _unhandled(changes: list[tuple[int, int]], *, group: str) -> list[tuple[int, int]]:
    """Those of which neither a notification nor a dead letter of the group, open or closed, tells."""
    orders = Order.objects.in_bulk({order_id for order_id, _ in changes})
    of_orders = {(order.pk, number): event for order in orders.values() for event, number in events_of(order).items()}
    events = {of_orders[change]: change for change in changes}
    told = {
        *notifications_of(events, user_ids={order.pk: order.user_id for order in orders.values()}),
        *letters_of(events, group=group),
    }
    return sorted(change for event, change in events.items() if event not in told)


def _events_never_handled(offsets: dict[int, Offsets], started_at: object, *, group: str) -> list[UUID]:
    # By what the events say, and never by position: offsets start again when a topic is made anew. A replay has an id
    # that nothing names; should it get lost, its letter is still open.
    return list(
        OutboxEvent.objects.filter(topic=settings.ORDER_EVENTS_TOPIC, published_at__lt=started_at)
        .exclude(event_type=REPLAY)
        .exclude(_still_to_be_read(offsets))
        .exclude(Exists(notifications_of_row()))
        .exclude(Exists(letters_of_row(group=group)))
        .values_list("event_id", flat=True)
    )


def _still_to_be_read(offsets: dict[int, Offsets]) -> Q:
    """Positions between the group's offset and the topic's end.

    A position beyond the end was acknowledged by a topic that has been made anew since.
    """
    lag = Q(pk__in=[])
    for partition, known in offsets.items():
        next_read = max(known.committed or 0, known.beginning)
        lag |= Q(published_partition=partition, published_offset__gte=next_read, published_offset__lt=known.end)
    return lag
