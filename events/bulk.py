"""Write many rows with one statement, where the ORM's own way costs more than the change itself."""

from collections.abc import Sequence
from typing import Any

import msgspec
from django.db import connection, models


def update_rows(rows: Sequence[models.Model], fields: Sequence[str]) -> None:
    """Write the fields of rows that exist, all of one model, with one statement.

    It does what `QuerySet.bulk_update` does in a tenth of the CPU time (docs/performance.md). The values must be plain
    ones that JSON can carry: no bytes, NaN or expressions. The caller holds the locks of the rows, because the
    statement writes them in no fixed order.
    """
    if not rows:
        return
    meta: Any = rows[0]._meta
    quote = connection.ops.quote_name
    columns = [meta.get_field(name) for name in fields]
    if any(isinstance(one, models.BinaryField) for one in columns):
        raise TypeError(f"update_rows cannot write bytes, which {' or '.join(fields)} holds")
    types = ", ".join(f"{quote(one.column)} {one.db_type(connection)}" for one in (meta.pk, *columns))
    changes = ", ".join(f"{quote(one.column)} = new.{quote(one.column)}" for one in columns)
    table, pk = quote(meta.db_table), quote(meta.pk.column)
    statement = (
        f"UPDATE {table} SET {changes} FROM json_to_recordset(%s) AS new ({types}) "  # noqa: S608 - names of the model
        f"WHERE {table}.{pk} = new.{pk}"
    )
    values = [{one.column: getattr(row, one.attname) for one in (meta.pk, *columns)} for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(statement, [msgspec.json.encode(values).decode()])
