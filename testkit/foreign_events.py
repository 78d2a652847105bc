"""Send order events as other programs do, and read the notifications and dead letters that follow.

The events are about orders that are not in the database.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from typing import NamedTuple

from orders.events import OrderEvent, encode
from testkit.database import rows
from testkit.factories import OrderEventFactory
from testkit.kafka_client import Outgoing, produce_all

TOPIC = "order-events"
DEAD_LETTERS = "order-events-dlt"
_foreign_ids = count(10**15)


class DeadLetterRow(NamedTuple):
    """A row of the table of dead letters. Partition, offset, key and value are those of the message."""

    partition: int
    offset: int
    error_message: str
    key: bytes | None
    value: bytes | None
    is_readable: bool


def foreign_event() -> OrderEvent:
    """Return an event with a new order id and a new user id."""
    number = next(_foreign_ids)
    return OrderEventFactory.build(order_id=number, user_id=number)


def foreign_events(number: int) -> list[OrderEvent]:
    return [foreign_event() for _ in range(number)]


def send(events: Iterable[OrderEvent], *, topic: str = TOPIC, partition: int = 0) -> None:
    """Send the events without keys and headers."""
    produce_all(topic, [Outgoing(encode(event), partition=partition) for event in events])


def notification_counts(events: Sequence[OrderEvent]) -> list[int]:
    """Return the number of notifications of each event, in the order of `events`."""
    ids = [str(event.event_id) for event in events]
    sql = "SELECT event_id::text FROM notifications_notification WHERE event_id = ANY(%(ids)s::uuid[])"
    counted = Counter(event_id for (event_id,) in rows(sql, ids=ids))
    return [counted[event_id] for event_id in ids]


def all_notified_once(events: Sequence[OrderEvent]) -> bool:
    return notification_counts(events) == [1] * len(events)


def open_dead_letters(*, group: str = "notification-consumer-group", after: int = 0) -> list[DeadLetterRow]:
    """Return the open dead letters of a group with ids above `after`, oldest first."""
    sql = """
        SELECT partition, "offset", error_message, key, value, is_readable FROM events_deadletter
        WHERE "group" = %(group)s AND id > %(after)s AND state = 'open' ORDER BY id
        """
    return [
        DeadLetterRow(partition, offset, message, key and bytes(key), value and bytes(value), is_readable)
        for partition, offset, message, key, value, is_readable in rows(sql, group=group, after=after)
    ]


def last_dead_letter_id() -> int:
    """Return the id of the latest dead letter, 0 if there is none."""
    ((last,),) = rows("SELECT coalesce(max(id), 0) FROM events_deadletter")
    return int(last)
