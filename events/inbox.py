"""The inbox records which events each group has handled. A group claims an event in the transaction that handles it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
from django.db import connection
from django.db.models import Func, OuterRef, QuerySet, TextField, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, Concat

from events.models import InboxEntry
from events.troubles import EventIdConflict


class Identified(Protocol):
    """An event's identity. Two events with the same id must agree in all these properties."""

    @property
    def event_id(self) -> UUID: ...

    @property
    def event_type(self) -> str: ...

    @property
    def stream(self) -> str:
        """Name of the event's stream, such as `order-7`. A stream has the events about one subject, in sequence."""

    @property
    def owner(self) -> int | None:
        """Id of the user that the event belongs to; None if it belongs to no user."""


class Identity(msgspec.Struct, frozen=True):
    """The identity of an event. Its fields have the names of the inbox's columns."""

    event_id: UUID
    event_type: str
    stream: str
    owner: int | None

    def __str__(self) -> str:
        return f"{self.event_type} of {self.stream}" + (f" for user {self.owner}" if self.owner is not None else "")


EventT = TypeVar("EventT", bound=Identified)
_encoder = msgspec.json.Encoder()


CLAIM = """
    INSERT INTO events_inboxentry ("group", event_id, event_type, stream, owner, handled_at)
    SELECT %s, new.*, statement_timestamp()
    FROM json_to_recordset(%s) AS new (event_id uuid, event_type text, stream text, owner bigint)
    ON CONFLICT DO NOTHING
    RETURNING event_id
    """
"""Statement that claims events for a group, and returns the ids of those that the group has not handled before.

Its parameters are the group, and the `Identity` of each event in one JSON array.
"""


def claim(*, group: str, events: Sequence[EventT]) -> list[EventT]:
    """Claim `events` for `group`. Return those that it has not handled before, each once and in the given order.

    Claimed events count as handled once the caller's transaction commits. Another process that claims one of them
    waits for that transaction to end.

    Raises:
        EventIdConflict: one of `events` has the id of a different event, in `events` or claimed before by `group`.
    """
    first: dict[UUID, EventT] = {}
    for event in events:
        first.setdefault(event.event_id, event)
    # Sorted, because two processes that claim the same events in different orders would deadlock.
    rows = sorted(map(_identity, first.values()), key=attrgetter("event_id.int"))
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, [group, _encoder.encode(rows).decode()])
        claimed = {event_id for (event_id,) in cursor}
    if len(claimed) < len(events):
        _refuse_conflicts(group, events)
    return [event for event_id, event in first.items() if event_id in claimed]


def handled(*, group: str, events: Iterable[Identified]) -> dict[UUID, datetime]:
    """Return the time at which `group` handled each of `events`, by event id. Unhandled events are left out."""
    wanted = {event.event_id: _identity(event) for event in events}
    return {
        entry.event_id: entry.handled_at
        for entry in entries(group).filter(event_id__in=wanted)
        if _identity(entry) == wanted[entry.event_id]
    }


def entries(group: str) -> QuerySet[InboxEntry]:
    """Return the inbox entries of `group`."""
    return InboxEntry.objects.filter(group=group)


def entries_of_row(group: str, *, stream_prefix: str) -> QuerySet[InboxEntry]:
    """Return a subquery for queries of outbox rows. It selects the group's inbox entry of the row's event.

    `stream_prefix` is `Topic.stream_prefix` of the row's topic.
    """
    return entries(group).filter(
        event_id=OuterRef("event_id"), event_type=OuterRef("event_type"), stream=stream_of_row(stream_prefix)
    )


def stream_of_row(stream_prefix: str) -> Combinable:
    """Return an SQL expression for the name of the stream that the event of an outbox row belongs to.

    Use it in a subquery of a query of outbox rows, because it refers to the row of the outer query. If the row has no
    stream, the name is `stream_prefix` followed by the row's key, which is the subject's id.
    """
    key = Func(OuterRef("key"), Value("escape"), function="encode", output_field=TextField())
    return Coalesce(OuterRef("stream"), Concat(Value(stream_prefix), key), output_field=TextField())


def _refuse_conflicts(group: str, events: Sequence[Identified]) -> None:
    handled_ids = [event.event_id for event in events]
    known = {entry.event_id: _identity(entry) for entry in entries(group).filter(event_id__in=handled_ids)}
    for event in events:
        if (before := known[event.event_id]) != (now := _identity(event)):
            raise EventIdConflict(event.event_id, before=str(before), now=str(now))


def _identity(event: Identified) -> Identity:
    return Identity(event.event_id, event.event_type, event.stream, event.owner)
