"""Find order changes and events that got lost between two systems, and send them again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, Q

from commerce.operations.handled import letters_of_row, notifications_of_row
from events.consuming.replay import REPLAY
from events.database import in_steps
from events.database_clock import database_now
from events.kafka.cluster import Offsets, Viewer
from events.models import DeadLetter, OutboxEvent
from events.outbox import recording as outbox
from notifications.models import Notification
from orders.models import Order, UnknownHistory
from orders.services import record_lost_event

ORDERS_AT_ONCE = 5_000


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What got lost. What is merely not read yet is lag, and not here."""

    changes: list[tuple[int, int]]
    """(order id, sequence) of changes without an outbox row."""
    events: list[UUID]
    """Ids of published events that the group will never read, with neither notification nor dead letter."""
    unknown: list[str] = field(default_factory=list)
    """One sentence about each order that lacks rows and whose changes nothing tells: its events cannot be repaired."""

    def __len__(self) -> int:
        return len(self.changes) + len(self.unknown) + len(self.events)


def find_missing(*, group: str) -> Missing:
    """Raises KafkaUnreachable."""
    started_at = database_now()
    viewer = Viewer(group=group)
    try:
        # Before the database is asked: whatever is committed below these offsets has been saved by then.
        offsets = viewer.offsets(settings.ORDER_EVENTS_TOPIC)
    finally:
        viewer.close()
    changes, unknown = _changes_without_row()
    return Missing(changes=changes, unknown=unknown, events=_events_never_handled(offsets, started_at))


def repair(missing: Missing) -> int:
    """Make what is missing pending again under its own event id, for the relay to send, and return how much that was.

    Raises UnknownHistory, where a program has changed an order since `find_missing`. Then nothing is repaired.
    """
    with transaction.atomic():
        for order_id, sequence in missing.changes:
            record_lost_event(order_id=order_id, sequence=sequence)
        return len(missing.changes) + outbox.send_again(missing.events)


def _changes_without_row() -> tuple[list[tuple[int, int]], list[str]]:
    """Return the changes that nothing tells of, and what is said of orders whose changes are unknown.

    It looks at some thousand orders at a time, because where old rows were pruned most changes have none.
    """
    found: list[tuple[int, int]] = []
    unknown: dict[int, str] = {}
    for ids in in_steps(Order.objects.all(), size=ORDERS_AT_ONCE):
        changes = _without_row(ids[0], ids[-1])
        orders = Order.objects.in_bulk({order_id for order_id, _ in changes})
        unknown |= _unknown_histories(orders.values())
        found += _unhandled([change for change in changes if change[0] not in unknown], orders)
    return found, list(unknown.values())


def _unknown_histories(orders: Iterable[Order]) -> dict[int, str]:
    """Return what is wrong with those of `orders` whose changes are unknown, by their ids."""
    unknown = {}
    for order in orders:
        try:
            order.event_types  # noqa: B018 - it raises
        except UnknownHistory as error:
            unknown[order.pk] = f"{error}. Some of its events lack their rows and are not repaired."
    return unknown


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


def _unhandled(changes: list[tuple[int, int]], orders: Mapping[int, Order]) -> list[tuple[int, int]]:
    """Those of which neither a notification nor a dead letter, open or closed, tells."""
    events = {}
    for order_id, sequence in changes:
        order = orders[order_id]
        events[order.event_id(sequence), order_id, order.event_types[sequence - 1]] = (order_id, sequence)
    event_ids = [event_id for event_id, _, _ in events]
    letters = DeadLetter.objects.filter(event_id__in=event_ids)
    told = set(letters.values_list("event_id", "subject_id", "event_type"))
    notifications = Notification.objects.filter(event_id__in=event_ids)
    for event_id, order_id, event_type, user_id in notifications.values_list("event_id", "order_id", "type", "user_id"):
        if order_id in orders and orders[order_id].user_id == user_id:
            told.add((event_id, order_id, event_type))
    return sorted(change for event, change in events.items() if event not in told)


def _events_never_handled(offsets: dict[int, Offsets], started_at: object) -> list[UUID]:
    # By what the events say, and never by position: offsets start again when a topic is made anew. A replay has an id
    # that nothing names; should it get lost, its letter is still open.
    return list(
        OutboxEvent.objects.filter(topic=settings.ORDER_EVENTS_TOPIC, published_at__lt=started_at)
        .exclude(event_type=REPLAY)
        .exclude(_still_to_be_read(offsets))
        .exclude(Exists(notifications_of_row()))
        .exclude(Exists(letters_of_row()))
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
