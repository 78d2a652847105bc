"""The transactional outbox: an event is recorded in the transaction of its change, and sent after the commit."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q

from events.database_clock import DatabaseClock
from events.models import OutboxEvent
from events.wire.messages import Message

_INSERT_INTO = f"INSERT INTO events_outboxevent ({', '.join(Message._fields)}, parked_reason)"
_VALUES = f"{', '.join(['%s'] * len(Message._fields))}, ''"
INSERT = f"{_INSERT_INTO} VALUES ({_VALUES})"
"""Statement that records a message. Its parameters are the fields of a `Message`.

A service whose change is a single SQL statement includes this one in its WITH clause. The statement sets
`parked_reason` to the empty string, because that column is required and has no default in the database. It is SQL
because the ORM needs three times the CPU time, and every change waits for this statement.
"""


def insert_from(rows: str) -> str:
    """Return `INSERT` as a statement that records the message only if the table or CTE `rows` has a row.

    With several rows, the statement would fail, because it would record the message several times under one id.
    """
    return f"{_INSERT_INTO} SELECT {_VALUES} FROM {rows}"  # noqa: S608 - contains no input


def record(message: Message) -> Message:
    """Record a message, and return it. See `record_all`."""
    record_all([message])
    return message


def record_all(messages: Sequence[Message]) -> None:
    """Record messages with one statement. They are sent after the surrounding transaction has committed.

    The caller passes few or small messages: PostgreSQL accepts no statement of 1 GiB.

    Raises:
        TransactionManagementError: there is no transaction, so a message could be sent without its change.
    """
    if not messages:
        return
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError(
            f"{messages[0].event_type} must be recorded in the transaction of the change that it announces: "
            "wrap both in transaction.atomic()."
        )
    rows = ", ".join([f"({_VALUES})"] * len(messages))
    with connection.cursor() as cursor:
        cursor.execute(f"{_INSERT_INTO} VALUES {rows}", [value for message in messages for value in message])


def send_again(event_ids: Iterable[UUID]) -> int:
    """Make published and parked rows pending again, under the same event ids. Return the number of changed rows.

    `recorded_at` becomes the current time, because a row's age measures the delay of the relay. The event keeps its
    own time, `created_at`.
    """
    rows = OutboxEvent.objects.filter(event_id__in=list(event_ids))
    return rows.filter(Q(published_at__isnull=False) | Q(parked_at__isnull=False)).update(
        recorded_at=DatabaseClock(),
        published_at=None,
        published_path=None,
        published_partition=None,
        published_offset=None,
        parked_at=None,
        parked_reason="",
    )
