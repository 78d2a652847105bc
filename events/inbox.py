"""The inbox: which events each group has handled. A group claims an event in the transaction that handles it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from django.db import connection
from django.db.models import OuterRef, QuerySet

from events.models import InboxEntry
from events.troubles import EventIdConflict


class Identified(Protocol):
    """What tells an event from all others. Where the event id is the same, the rest has to be the same, too."""

    @property
    def event_id(self) -> UUID: ...

    @property
    def event_type(self) -> str: ...

    @property
    def stream(self) -> str:
        """What the event is about. The producer's outbox rows name the same stream."""

    @property
    def owner(self) -> int | None:
        """Id of the user whom the event concerns; None where it concerns no user."""


class Identity(NamedTuple):
    """An event without its content."""

    event_id: UUID
    event_type: str
    stream: str
    owner: int | None

    def __str__(self) -> str:
        return f"{self.event_type} of {self.stream}" + (f" for user {self.owner}" if self.owner is not None else "")


EventT = TypeVar("EventT", bound=Identified)


def claim(*, group: str, events: Sequence[EventT]) -> list[EventT]:
    """Return those of `events` that `group` has not handled before, each once and in their order.

    They count as handled when the caller's transaction commits. Another process that claims one of them waits for
    this transaction.

    Raises:
        EventIdConflict: an event has the id of another one.
    """
    first: dict[UUID, EventT] = {}
    for event in events:
        first.setdefault(event.event_id, event)
    # In a certain order: two processes that claim the same events in different orders would deadlock.
    rows = sorted((str(event.event_id), event.event_type, event.stream, event.owner) for event in first.values())
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO events_inboxentry ("group", event_id, event_type, stream, owner, handled_at)
            SELECT %s, new.*, statement_timestamp()
            FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[]) AS new
            ON CONFLICT DO NOTHING
            RETURNING event_id
            """,
            [group, *map(list, zip(*rows, strict=True))],
        )
        claimed = {event_id for (event_id,) in cursor}
    if len(claimed) < len(events):
        _refuse_conflicts(group, events)
    return [event for event_id, event in first.items() if event_id in claimed]


def handled(*, group: str, events: Iterable[Identified]) -> dict[UUID, datetime]:
    """Return, by event id, when `group` handled each of `events`; those it has not handled are left out."""
    wanted = {event.event_id: _identity(event) for event in events}
    return {
        entry.event_id: entry.handled_at
        for entry in entries(group).filter(event_id__in=wanted)
        if _identity(entry) == wanted[entry.event_id]
    }


def entries(group: str) -> QuerySet[InboxEntry]:
    return InboxEntry.objects.filter(group=group)


def entries_of_row(group: str) -> QuerySet[InboxEntry]:
    """Return the entry of the event in the outbox row that the outer query looks at."""
    return entries(group).filter(
        event_id=OuterRef("event_id"), event_type=OuterRef("event_type"), stream=OuterRef("stream")
    )


def _refuse_conflicts(group: str, events: Sequence[Identified]) -> None:
    handled_ids = [event.event_id for event in events]
    known = {entry.event_id: _identity(entry) for entry in entries(group).filter(event_id__in=handled_ids)}
    for event in events:
        if (before := known[event.event_id]) != (now := _identity(event)):
            raise EventIdConflict(event.event_id, before=str(before), now=str(now))


def _identity(event: Identified) -> Identity:
    return Identity(event.event_id, event.event_type, event.stream, event.owner)
