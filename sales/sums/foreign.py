"""Divide arrived events into this site's own events and foreign ones, and save copies of the foreign ones.

An event is our own if the outbox or the history has a row with its id, type, stream and user. Such an event counts as
that row says, whatever the record on the topic says, so that the sums equal those over the history. Every other event
is foreign: it comes from another program.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.db import connection

from orders.events import OrderEventType, decode
from orders.history import RECORDED_EVENTS
from sales.sums.arrivals import Arrival

# OFFSET 0 makes PostgreSQL look up each event in the indexes. Without it, it may read both tables.
DIFFERING = f"""
    SELECT new.event_id, recorded.value
    FROM json_to_recordset(%s) AS new (event_id uuid, event_type text, stream text, digest bytea)
    LEFT JOIN LATERAL (
        SELECT recorded.value FROM ({RECORDED_EVENTS}) AS recorded
        WHERE recorded.event_id = new.event_id AND recorded.event_type = new.event_type
            AND recorded.stream = new.stream
        OFFSET 0
    ) AS recorded ON true
    WHERE recorded.value IS NULL OR sha256(recorded.value) <> new.digest
    """  # noqa: S608 - it consists of constants
"""SQL statement that compares arrived events with the outbox and the history.

It returns (event id, recorded value) of each event whose recorded value is missing or differs from the arrived value.
"""

INSERT = """
    INSERT INTO sales_foreignevent (event_id, event_type, order_id, user_id, occurred_at, amount)
    SELECT * FROM json_to_recordset(%s) AS new
        (event_id uuid, event_type text, order_id bigint, user_id bigint, occurred_at timestamptz, amount numeric)
    """

_encoder = msgspec.json.Encoder()


class Wanted(msgspec.Struct):
    """An arrived event, which the SQL statement `DIFFERING` compares with the recorded one. It is passed as JSON.

    `digest` is the SHA-256 hash of the event's value, in PostgreSQL's hexadecimal format of a bytea.
    """

    event_id: UUID
    event_type: str
    stream: str
    digest: str


class ForeignRow(msgspec.Struct):
    """A new row of `ForeignEvent`. The fields have the names of the columns."""

    event_id: UUID
    event_type: OrderEventType
    order_id: int
    user_id: int
    occurred_at: datetime
    amount: Decimal


class Sorted(NamedTuple):
    recorded: list[Arrival]
    """Our own events, with the values in the outbox or the history instead of those that arrived."""
    foreign: list[Arrival]
    """Events of other programs, as they arrived."""


def as_recorded(arrivals: Sequence[Arrival]) -> Sorted:
    """Return our own events as outbox and history have them, and events of other programs as they arrived."""
    wanted = [
        Wanted(one.event_id, one.event_type, one.stream, rf"\x{sha256(one.value).hexdigest()}") for one in arrivals
    ]
    with connection.cursor() as cursor:
        cursor.execute(DIFFERING, [_encoder.encode(wanted).decode()])
        differing = dict(cursor.fetchall())
    if not differing:
        return Sorted(list(arrivals), [])
    found = Sorted([], [])
    for arrival in arrivals:
        if arrival.event_id not in differing:
            found.recorded.append(arrival)
            continue
        value = differing[arrival.event_id]
        event = None if value is None else decode(bytes(value))
        if event is None or event.user_id != arrival.owner:
            found.foreign.append(arrival)
        else:
            found.recorded.append(Arrival(event, arrival.partition, bytes(value)))
    return found


def save_foreign(arrivals: Sequence[Arrival]) -> None:
    """Save a copy of each of `arrivals`, in the caller's transaction.

    The caller passes only events that `as_recorded` has found to be events of other programs.
    """
    rows = [
        ForeignRow(
            event_id=event.event_id,
            event_type=event.event_type,
            order_id=event.order_id,
            user_id=event.user_id,
            occurred_at=event.timestamp,
            amount=event.total_amount,
        )
        for event in (arrival.event for arrival in arrivals)
    ]
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [_encoder.encode(rows).decode()])
