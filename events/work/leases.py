"""Claim work with a lease, and record the outcomes of leases.

The token of a lease fences its work: an outcome is recorded only if the row still has the token. So a worker that was
frozen beyond its lease cannot overwrite the outcome of another worker.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection

from events.work.models import LeasedWork, WorkT

Settled = tuple[int, UUID]
"""A row's primary key, and the lease under which its new state was recorded."""


class Settlement(msgspec.Struct, frozen=True):
    """The new state of one leased row. The SQL statement in `settle` uses the names of these fields."""

    pk: int
    lease: UUID
    """The token under which the row was claimed. The settlement takes effect only while the row has this token."""
    state: str
    """A value of `LeasedWork.State`."""
    error: str | None = None
    """The row's new `last_error`; None keeps the old one."""
    pause_s: float = 0
    """Seconds from the settlement until a row that stays pending is due. It is due at its deadline at the latest."""
    due_at: datetime | None = None
    """The time at which a row that stays pending is due. If it is set, `pause_s` has no effect."""
    tried: bool = True
    """False if the worker gives the row back without an attempt."""


def claim(model: type[WorkT], *, lease: UUID, seconds: float, limit: int, due_until: datetime | None) -> list[WorkT]:
    """Lease at most `limit` due rows for `seconds`, and return them.

    Rows whose lease has run out are due again. Rows that another worker claims at the same moment are skipped. With
    `due_until`, only rows that were due by that time are claimed. Each returned row has two more attributes:
    `is_overdue` says whether its deadline has passed, and `was_due_at` is the time at which it was due before this
    claim.
    """
    statement, fields = _claiming(model)
    with connection.cursor() as cursor:
        cursor.execute(statement, [due_until, limit, lease, seconds])
        return [_claimed(model, fields, row) for row in cursor]


def settle(model: type[LeasedWork], settlements: Collection[Settlement]) -> set[Settled]:
    """Record the new states of rows, and return the primary key and the lease of each row that still had its lease."""
    table, pk = _names(model)
    statement = f"""
        UPDATE {table} AS work
        SET state = settled.state,
            lease = NULL,
            due_at = CASE settled.state WHEN 'pending'
                THEN coalesce(
                    settled.due_at,
                    least(statement_timestamp() + make_interval(secs => settled.pause_s), work.deadline_at)
                )
                ELSE work.due_at END,
            attempts = work.attempts - (NOT settled.tried)::int,
            last_error = coalesce(settled.error, work.last_error),
            finished_at = CASE settled.state WHEN 'pending' THEN NULL ELSE statement_timestamp() END
        FROM json_to_recordset(%s) AS settled
            (pk bigint, lease uuid, state text, error text, pause_s float, due_at timestamptz, tried boolean)
        WHERE work.{pk} = settled.pk AND work.lease = settled.lease
        RETURNING settled.pk, settled.lease
        """  # noqa: S608 - it consists of names of the model
    with connection.cursor() as cursor:
        cursor.execute(statement, [msgspec.json.encode(list(settlements)).decode()])
        return set(cursor.fetchall())


def lease_of(work: LeasedWork) -> UUID:
    """Return the lease under which `claim` returned `work`."""
    assert work.lease is not None
    return work.lease


def _names(model: type[LeasedWork]) -> Sequence[str]:
    """Return the quoted names of the model's table and of its primary key's column."""
    meta: Any = model._meta
    return [connection.ops.quote_name(name) for name in (meta.db_table, meta.pk.column)]


@cache
def _claiming(model: type[LeasedWork]) -> tuple[str, Sequence[Any]]:
    """Return the statement that claims rows, and the fields with whose values each returned row begins.

    After them, each returned row has two more values, `was_due_at` and `is_overdue`.
    """
    table, pk = _names(model)
    meta: Any = model._meta
    fields = meta.concrete_fields
    columns = ", ".join(f"work.{connection.ops.quote_name(field.column)}" for field in fields)
    # A CTE with MATERIALIZED runs once. PostgreSQL may run a subquery several times, and would then lock more rows.
    statement = f"""
        WITH due AS MATERIALIZED (
            SELECT {pk} AS pk, due_at AS was_due_at FROM {table}
            WHERE state = 'pending' AND due_at <= least(statement_timestamp(), %s)
            ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
        )
        UPDATE {table} AS work
        SET lease = %s, due_at = statement_timestamp() + make_interval(secs => %s), attempts = attempts + 1
        FROM due WHERE work.{pk} = due.pk
        RETURNING {columns}, was_due_at, coalesce(deadline_at <= statement_timestamp(), false)
        """  # noqa: S608 - it consists of names of the model
    return statement, fields


def _claimed(model: type[WorkT], fields: Sequence[Any], row: Sequence[Any]) -> WorkT:
    """Return the object of a claimed row. `QuerySet.raw` would take several times the CPU time."""
    *stored, was_due_at, is_overdue = row
    values = [
        field.from_db_value(value, None, connection) if hasattr(field, "from_db_value") else value
        for field, value in zip(fields, stored, strict=True)
    ]
    work = model.from_db(connection.alias, [field.attname for field in fields], values)
    work.was_due_at, work.is_overdue = was_due_at, is_overdue
    return work
