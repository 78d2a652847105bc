"""Write many rows with one statement, where the ORM's own way costs more than the change itself.

The values must be bytes, or plain ones that JSON can carry: no NaN or expressions.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import msgspec
from django.db import connection, models
from django.db.models.expressions import DatabaseDefault


def insert_rows(rows: Sequence[models.Model], *, update: Sequence[str] = (), ignore_conflicts: bool = False) -> int:
    """Insert rows, all of one model, with one statement. Return the number of inserted and updated rows.

    If a row with the same primary key exists, the statement writes the fields `update` of that row. Without `update`,
    it raises IntegrityError. With `ignore_conflicts`, it leaves out a row that would break a unique constraint, with an
    existing row or with an earlier one of `rows`; `update` must then be empty. The effect is that of
    `QuerySet.bulk_create`, for less CPU time (docs/performance.md).

    The database generates primary keys and defaults (`db_default`) that the objects lack. The objects do not get the
    generated values. Either all of the objects must lack such a field or none. Raises ValueError if the first object
    lacks one that another has.
    """
    if update and ignore_conflicts:
        raise ValueError("A row in conflict is either updated or ignored")
    if not rows:
        return 0
    first, model = rows[0], type(rows[0])
    generated = frozenset(one for one in model._meta.concrete_fields if _is_generated(one, first))
    if not all(_is_generated(one, row) for one in generated for row in rows):
        raise ValueError(
            f"Only some of these rows have a value for {' or '.join(sorted(one.name for one in generated))}"
        )
    statement, columns = _insert(model, generated, update=tuple(update), ignore_conflicts=ignore_conflicts)
    return _execute(statement, rows, columns)


def update_rows(rows: Sequence[models.Model], fields: Sequence[str]) -> None:
    """Write the fields of rows that exist, all of one model, with one statement.

    It does what `QuerySet.bulk_update` does in a tenth of the CPU time (docs/performance.md). The caller holds the
    locks of the rows, because the statement writes them in no fixed order.
    """
    if rows:
        statement, columns = _update(type(rows[0]), tuple(fields))
        _execute(statement, rows, columns)


@cache
def _insert(
    model: type[models.Model], generated: Collection[Any], *, update: Sequence[str], ignore_conflicts: bool
) -> tuple[str, list[Any]]:
    """Return the statement that inserts rows, and the fields whose values it takes."""
    meta: Any = model._meta
    columns = [one for one in meta.concrete_fields if one not in generated]
    names = ", ".join(map(_column, columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in map(_column, map(meta.get_field, update)))
    conflict = f"ON CONFLICT ({_column(meta.pk)}) DO UPDATE SET {changes}" if update else ""
    if ignore_conflicts:
        conflict = "ON CONFLICT DO NOTHING"
    statement = f"INSERT INTO {_table(meta)} ({names}) SELECT {names} FROM {_new(columns)} {conflict}"  # noqa: S608 - names of the model
    return statement, columns


@cache
def _update(model: type[models.Model], fields: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the statement that writes the fields of rows, and the fields whose values it takes."""
    meta: Any = model._meta
    columns = [meta.get_field(name) for name in fields]
    changes = ", ".join(f"{_column(one)} = new.{_column(one)}" for one in columns)
    table, pk = _table(meta), _column(meta.pk)
    columns = [meta.pk, *columns]
    statement = f"UPDATE {table} SET {changes} FROM {_new(columns)} WHERE {table}.{pk} = new.{pk}"  # noqa: S608 - names of the model
    return statement, columns


def _table(meta: Any) -> str:
    return connection.ops.quote_name(meta.db_table)


def _column(field: Any) -> str:
    return connection.ops.quote_name(field.column)


def _is_generated(field: Any, row: models.Model) -> bool:
    """Return whether the database supplies the field's value, because the object has none."""
    value = getattr(row, field.attname)
    return isinstance(value, DatabaseDefault) or (field.primary_key and value is None)


def _new(columns: Sequence[Any]) -> str:
    """Return the SQL of the table `new` for a FROM clause. Its only parameter is the rows as a JSON array.

    The table has the columns `columns`.
    """
    types = ", ".join(f"{_column(one)} {one.db_type(connection)}" for one in columns)
    return f"json_to_recordset(%s) AS new ({types})"


def _execute(statement: str, rows: Sequence[models.Model], columns: Sequence[Any]) -> int:
    values = [{one.column: _in_json(getattr(row, one.attname)) for one in columns} for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(statement, [msgspec.json.encode(values).decode()])
        return cursor.rowcount


def _in_json(value: Any) -> Any:
    """Return `value`; for bytes, return the text from which PostgreSQL reads them."""
    return f"\\x{value.hex()}" if isinstance(value, bytes | bytearray | memoryview) else value
