"""Compare the orders, outbox, topic, notifications and dead letters of a site whose events have all been handled."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from testkit.database import rows
from testkit.kafka_client import read_topic


class Event(NamedTuple):
    """An order event as read from the outbox, with what has become of it."""

    id: UUID
    type: str
    order_id: int
    sequence: int
    notifications: int
    has_open_dead_letter: bool


class Delivered(NamedTuple):
    """An order event as read from the topic."""

    id: UUID
    order_id: int
    sequence: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The numbers of changes, orders, events, notifications and dead letters that `compare` has compared."""

    acknowledged: int
    """Number of changes of orders that the API has acknowledged."""
    unanswered: int
    """Number of requests to place an order that got no answer or a 5xx."""
    orders: int
    events: int
    notifications: int
    dead_letters: int
    repeats: int
    """Number of messages on the topic beyond the first of each event."""


def compare(
    *, user_ids: Sequence[int], started_after: int, acknowledged: Sequence[tuple[int, str]], unanswered: Sequence[int]
) -> Figures:
    """Check that all data about these users' orders agree, and return the figures. Raises AssertionError if not.

    Args:
        user_ids: the owners of the orders to compare.
        started_after: orders with ids up to and including this one are left out.
        acknowledged: (order id, event type) of each change that was answered with 200 or 201.
        unanswered: user ids, one for each request to place an order that got no answer or a 5xx.
    """
    orders = {
        order_id: (user_id, changes)
        for order_id, user_id, changes in rows(
            "SELECT id, user_id, last_sequence FROM orders_order WHERE user_id = ANY(%(users)s) AND id > %(after)s",
            users=list(user_ids),
            after=started_after,
        )
    }
    events = _events(list(orders))
    delivered = _delivered(orders)
    problems = [
        *_lost_orders(orders, acknowledged, unanswered),
        *_wrong_outbox(orders, events, acknowledged),
        *_wrong_notifications(orders, events),
        *_wrong_topic(events, delivered),
    ]
    assert not problems, f"{len(problems)} problems, the first are: " + "; ".join(problems[:20])
    return Figures(
        acknowledged=len(acknowledged),
        unanswered=len(unanswered),
        orders=len(orders),
        events=len(events),
        notifications=sum(event.notifications for event in events),
        dead_letters=sum(event.has_open_dead_letter for event in events),
        repeats=len(delivered) - len({one.id for one in delivered}),
    )


def _events(order_ids: list[int]) -> list[Event]:
    sql = """
        SELECT event.event_id::text, event.event_type, substr(event.stream, 7)::bigint, event.sequence,
            (SELECT count(*) FROM notifications_notification AS n WHERE n.event_id = event.event_id),
            EXISTS (SELECT FROM events_deadletter AS d WHERE d.event_id = event.event_id AND d.state = 'open')
        FROM events_outboxevent AS event
        WHERE event.stream = ANY(%(streams)s)
        """
    found = rows(sql, streams=[f"order-{order_id}" for order_id in order_ids])
    return [Event(UUID(event_id), *rest) for event_id, *rest in found]


def _delivered(order_ids: Collection[int]) -> list[Delivered]:
    """Return the events of these orders on the topic, ordered by partition and offset."""
    subjects = {str(order_id).encode(): order_id for order_id in order_ids}
    delivered = []
    for message in read_topic("order-events"):
        header = message.header
        order_id = subjects.get(header.get("ce_subject") or b"")
        if order_id is not None:
            event_id = UUID((header["ce_id"] or b"").decode())
            delivered.append(Delivered(event_id, order_id, int(header["ce_sequence"] or 0)))
    return delivered


def _lost_orders(
    orders: dict[int, tuple[int, int]], acknowledged: Sequence[tuple[int, str]], unanswered: Sequence[int]
) -> Iterator[str]:
    placed = {order_id for order_id, _ in acknowledged}
    for order_id in placed - set(orders):
        yield f"order {order_id} was acknowledged and is lost"
    never_answered = Counter(orders[order_id][0] for order_id in set(orders) - placed)
    for user_id, count in never_answered.items():
        if count > unanswered.count(user_id):
            yield f"user {user_id} placed {unanswered.count(user_id)} orders without an answer, there are {count}"


def _wrong_outbox(
    orders: dict[int, tuple[int, int]], events: Sequence[Event], acknowledged: Sequence[tuple[int, str]]
) -> Iterator[str]:
    recorded = Counter((event.order_id, event.sequence) for event in events)
    changes = {(order_id, number + 1) for order_id, (_, count) in orders.items() for number in range(count)}
    for order_id, sequence in changes - set(recorded):
        yield f"change {sequence} of order {order_id} has no outbox row"
    for (order_id, sequence), count in recorded.items():
        if count > 1 or (order_id, sequence) not in changes:
            yield f"change {sequence} of order {order_id} has {count} outbox rows"
    for order_id, event_type in set(acknowledged) - {(event.order_id, event.type) for event in events}:
        yield f"{event_type} of order {order_id} was acknowledged and is lost"


def _wrong_notifications(orders: dict[int, tuple[int, int]], events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        if event.notifications > 1:
            yield f"{event} has {event.notifications} notifications"
        elif not event.notifications and not event.has_open_dead_letter:
            yield f"{event} has neither notification nor dead letter"
    sql = """
        SELECT user_id, order_id, type, count(*) FROM notifications_notification
        WHERE order_id = ANY(%(orders)s) GROUP BY user_id, order_id, type HAVING count(*) > 1
        """
    for user_id, order_id, event_type, count in rows(sql, orders=list(orders)):
        yield f"user {user_id} has {count} notifications of {event_type} of order {order_id}"


def _wrong_topic(events: Sequence[Event], delivered: Sequence[Delivered]) -> Iterator[str]:
    recorded = {event.id: event for event in events}
    for missing in set(recorded) - {one.id for one in delivered}:
        yield f"{recorded[missing]} is not on the topic"
    for unknown in {one.id for one in delivered} - set(recorded):
        yield f"{unknown} is on the topic and not in the outbox"
    for order_id, sequences in first_seen(delivered).items():
        if sequences != sorted(sequences):
            yield f"the events of order {order_id} are on the topic in the order {sequences}"


def first_seen(delivered: Sequence[Delivered]) -> dict[int, list[int]]:
    """Return the sequence numbers of each order's events, in the order of their first occurrence on the topic."""
    seen: dict[int, dict[Any, int]] = defaultdict(dict)
    for one in delivered:
        seen[one.order_id].setdefault(one.id, one.sequence)
    return {order_id: list(sequences.values()) for order_id, sequences in seen.items()}
