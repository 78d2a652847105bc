"""Statements that PostgreSQL parses and plans once for each connection, not for each execution.

psycopg2 has no prepared statements of its own, so this module writes SQL's PREPARE and EXECUTE.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from django.db import Error
from psycopg2 import errors

logger = logging.getLogger(__name__)

_STALE = (
    # Another program discarded the statement, or a pooler switched to another server session.
    errors.InvalidSqlStatementName,
    errors.DuplicatePreparedStatement,
    # A migration changed the type of a column since the statement was prepared.
    errors.FeatureNotSupported,
    errors.DatatypeMismatch,
)
"""Errors of a stale prepared statement. After one of them, the same SQL is sent unprepared.

This is safe, because PostgreSQL raises them before it changes a row. Unprepared SQL does not raise them.
"""

_prepared: WeakKeyDictionary[Any, set[str] | None] = WeakKeyDictionary()
"""Names of the statements that each psycopg2 connection has prepared. None if it must prepare no further statement."""


class PreparedStatement:
    """SQL that each connection prepares before its first execution.

    `DATABASES["default"]["PREPARE"]` enables this. Without it, the SQL is sent with every execution.
    """

    def __init__(self, sql: str) -> None:
        """Create a statement from SQL that has `%s` for each parameter and no other percent sign.

        A parameter needs a cast, such as `%s::bigint`, if PostgreSQL cannot infer its type from a column.
        """
        self._sql = sql
        parameters = sql.count("%s")
        # The name follows from the content, so that it means the same SQL in every release and process.
        self._name = f"prepared_{hashlib.sha256(sql.encode()).hexdigest()[:16]}"
        self._prepare = f"PREPARE {self._name} AS {sql % tuple(f'${number + 1}' for number in range(parameters))}"
        self._execute = f"EXECUTE {self._name} ({', '.join(['%s'] * parameters)})"

    def execute(self, cursor: Any, parameters: Sequence[Any]) -> None:
        """Execute the statement with a cursor of one of Django's connections.

        PostgreSQL may refuse a prepared statement after a migration or behind a connection pooler. Outside of a
        transaction, the same SQL is then sent again, unprepared. In a transaction, the SQL is always sent unprepared,
        because the error would abort the transaction.
        """
        database = cursor.db
        session = database.connection
        prepared = _prepared.setdefault(session, set())
        if prepared is None or not database.autocommit or not database.settings_dict.get("PREPARE"):
            cursor.execute(self._sql, parameters)
            return
        try:
            if self._name not in prepared:
                cursor.execute(self._prepare)
                prepared.add(self._name)
            cursor.execute(self._execute, parameters)
        except Error as error:
            if not isinstance(error.__cause__, _STALE):
                raise
            logger.warning("This connection prepares no more statements, see DATABASE_PREPARE: %s", error)
            _prepared[session] = None
            cursor.execute(self._sql, parameters)
