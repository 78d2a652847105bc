"""Find lost events, and send them again.

An event without a row in outbox or history is lost if no group has handled or dead-lettered it. An event with a row is
lost if a group has neither handled nor dead-lettered it, and will never read it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.db import DataError, IntegrityError, connection, transaction
from django.db.models import Q, QuerySet

from events.consuming.handled import is_known_to
from events.consuming.replay import REPLAY
from events.consuming.subjects import complete_subjects
from events.database import in_steps
from events.database_clock import database_now
from events.inbox import Identity
from events.kafka.cluster import Offsets, Viewer
from events.models import DeadLetter, OutboxEvent
from events.outbox import recording
from events.process.progress import ProgressLine
from events.subscriptions import Subscription
from orders.events import ORDER_EVENTS, STREAM_PREFIX
from orders.history import RECORDED_EVENTS, send_again_from_history
from orders.models import Order, OrderHistory, UnknownHistory
from orders.services import record_lost_event

BATCH_ORDERS = 5_000
"""Number of orders that one query checks."""
BATCH_EVENTS = 5_000
"""Number of events that one query checks for one group."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """The lost changes of orders and lost events that one step of `find_missing` has found.

    An event that a group still has to read is not lost.
    """

    changes: set[tuple[int, int]] = field(default_factory=set)
    """(order id, sequence) of lost changes. Such a change has no row in the outbox or the history."""
    events: set[UUID] = field(default_factory=set)
    """Ids of published events that a group will never read. This group has neither handled nor dead-lettered them."""
    unknown: list[str] = field(default_factory=list)
    """One sentence about each order that cannot be repaired.

    Some events of such an order are neither in the outbox nor in the history. The order's status and number of events
    do not tell which events these were (`UnknownHistory`).
    """

    def __len__(self) -> int:
        return len(self.changes) + len(self.unknown) + len(self.events)


class Repaired(NamedTuple):
    events: int
    """Number of events that are pending again."""
    refused: dict[int, str]
    """One sentence about each order whose lost changes cannot be recorded again, by order id."""


class Reading(NamedTuple):
    """How far a group has read its topic."""

    subscription: Subscription[Any]
    offsets: dict[int, Offsets]
    started_at: datetime
    """The time by the database's clock before the offsets were read."""


def find_missing(groups: Sequence[Subscription[Any]], *, progress: ProgressLine | None = None) -> Iterator[Missing]:
    """Yield, for each step, the lost changes of orders, and the events that are lost for at least one of `groups`.

    A step is a batch of outbox rows, history rows or orders. `Missing` says which changes and events are lost. The
    caller may repair and commit each step before the next one. If Kafka does not answer, raise KafkaUnreachable before
    the first step.
    """
    complete_subjects()
    # Offsets are read before the database, so that every event below them has been saved by then.
    yield from search([_reading(subscription) for subscription in groups], progress=progress)


def search(readings: Sequence[Reading], *, progress: ProgressLine | None = None) -> Iterator[Missing]:
    """Yield the same as `find_missing`, but take the offsets of each group from `readings`.

    The caller must read the offsets before this function reads the database. Dead letters without a subject id count
    only if the caller has called `complete_subjects`.
    """
    progress = progress or ProgressLine(StringIO())
    # A row that `prune_events` moves during the search is not missed: it moves from the first table to the second.
    for rows, name in ((OutboxEvent.objects.all(), "outbox"), (OrderHistory.objects.all(), "history")):
        for ids in in_steps(rows, size=BATCH_EVENTS, report=progress.of(name)):
            step = rows.filter(pk__range=(ids[0], ids[-1]))
            yield Missing(events={event for reading in readings for event in _events_never_handled(step, reading)})
    readers = [one.subscription for one in readings if one.subscription.topic.name == ORDER_EVENTS.name]
    if readers:
        yield from _changes_without_row(readers, progress)


def _reading(subscription: Subscription[Any]) -> Reading:
    started_at = database_now()
    viewer = Viewer(group=subscription.group)
    try:
        return Reading(subscription, viewer.offsets(subscription.topic.name), started_at)
    finally:
        viewer.close()


def repair(missing: Missing) -> Repaired:
    """Make the missing events pending in the outbox again, under the same event ids. The relay then sends them.

    An order whose events cannot be recorded again is left as it is, and the others are repaired.
    """
    recorded = 0
    refused = {}
    with transaction.atomic():
        for order_id, changes in groupby(sorted(missing.changes), key=itemgetter(0)):
            sequences = [sequence for _, sequence in changes]
            try:
                with transaction.atomic():
                    for sequence in sequences:
                        record_lost_event(order_id=order_id, sequence=sequence)
                recorded += len(sequences)
            except (UnknownHistory, Order.DoesNotExist, DataError, IntegrityError) as error:
                reason = " ".join(str(error).split()).rstrip(".")
                refused[order_id] = f"The lost events of order {order_id} are not repaired: {reason}."
        again = recording.send_again(missing.events)
        if again < len(missing.events):
            again += send_again_from_history(missing.events)
        return Repaired(recorded + again, refused)


def _changes_without_row(groups: Sequence[Subscription[Any]], progress: ProgressLine) -> Iterator[Missing]:
    """Yield, for each batch of orders, the lost changes, and one sentence about each order of unknown history.

    Each of `groups` must read the topic of orders. A change is lost if its event has no row in the outbox or the
    history, none of `groups` has handled or dead-lettered the event, and at least one of them wants its type. An event
    that a group has handled or dead-lettered has no row because `prune` has discarded it. The orders are read in
    batches, because one query could return too many changes without a row.
    """
    for ids in in_steps(Order.objects.all(), size=BATCH_ORDERS, report=progress.of("orders")):
        changes = _without_row(ids[0], ids[-1])
        orders = Order.objects.in_bulk({order_id for order_id, _ in changes})
        unknown = _unknown_histories(orders.values())
        lost = _unknown_to_all([change for change in changes if change[0] not in unknown], orders, groups)
        yield Missing(changes=lost, unknown=list(unknown.values()))


def _unknown_histories(orders: Iterable[Order]) -> dict[int, str]:
    """Return one sentence about each of `orders` whose events are not known (`UnknownHistory`), by order id."""
    unknown = {}
    for order in orders:
        try:
            order.event_types  # noqa: B018 - it raises
        except UnknownHistory as error:
            unknown[order.pk] = f"{error}. Some of its events have no row and are not repaired."
    return unknown


def _without_row(first: int, last: int) -> list[tuple[int, int]]:
    """Return (order id, sequence) of the changes whose event has no row in the outbox or the history.

    The changes are those of the orders from id `first` up to and including id `last`.
    """
    # OFFSET makes PostgreSQL look up each change in the indexes. Without it, each call reads both tables, because
    # PostgreSQL estimates a thousand rows for each generate_series.
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT placed.id, change.sequence
            FROM orders_order AS placed, generate_series(1, placed.last_sequence) AS change (sequence)
            WHERE placed.id BETWEEN %s AND %s AND NOT EXISTS (
                SELECT FROM ({RECORDED_EVENTS}) AS event
                WHERE event.stream = %s || placed.id AND event.sequence = change.sequence
                OFFSET 0
            )
            ORDER BY placed.id, change.sequence
            """,  # noqa: S608 - it contains no input
            [first, last, STREAM_PREFIX],
        )
        return cursor.fetchall()


def _unknown_to_all(
    changes: list[tuple[int, int]], orders: Mapping[int, Order], groups: Sequence[Subscription[Any]]
) -> set[tuple[int, int]]:
    """Return those of `changes` whose event is lost: no group knows the event, and at least one group wants its type.

    Only `groups` are asked. A group knows an event that it has handled or dead-lettered, even if the dead letter is
    closed. `changes` are pairs of order id and sequence, and `orders` has the orders by id.

    If at least one group knows an event, the event is not lost: `prune` has deleted its row. `prune` does this only
    when no group needs the event.
    """
    events = {}
    for order_id, sequence in changes:
        order = orders[order_id]
        event_type = order.event_types[sequence - 1]
        if all(event_type in group.unwanted for group in groups):
            continue
        identity = Identity(order.event_id(sequence), event_type, order.stream, order.user_id)
        events[identity] = (order_id, sequence)
    letters = DeadLetter.objects.filter(
        group__in=[one.group for one in groups], event_id__in=[event.event_id for event in events]
    )
    dead = set(letters.values_list("event_id", "subject_id", "event_type"))
    handled = {event_id for group in groups for event_id in group.handled(events)}
    return {
        (order_id, sequence)
        for event, (order_id, sequence) in events.items()
        if event.event_id not in handled and (event.event_id, order_id, event.event_type) not in dead
    }


def _events_never_handled(rows: QuerySet[Any], reading: Reading) -> Iterable[UUID]:
    """Return the ids of the lost events among `rows`, which are rows of the outbox or the history.

    The group of `reading` will never read a lost event, and has neither handled nor dead-lettered it.
    """
    # Events are matched by id, not by offset, because offsets restart when a topic is recreated. A replay has an id
    # that no receipt names. If a replay is lost, its dead letter is still open.
    return (
        rows.filter(topic=reading.subscription.topic.name, published_at__lt=reading.started_at)
        .exclude(event_type=REPLAY)
        .exclude(_still_to_be_read(reading.offsets))
        .exclude(is_known_to(reading.subscription))
        .values_list("event_id", flat=True)
    )


def _still_to_be_read(offsets: dict[int, Offsets]) -> Q:
    """Return the condition for outbox and history rows whose event the group still has to read.

    The offset of such an event is at least the group's next offset, and below the end of the partition. An offset at or
    above the end belongs to an earlier topic of the same name. The keys of `offsets` are partition numbers.
    """
    lag = Q(pk__in=[])
    for partition, known in offsets.items():
        next_read = max(known.committed or 0, known.beginning)
        lag |= Q(published_partition=partition, published_offset__gte=next_read, published_offset__lt=known.end)
    return lag
