"""Django's PostgreSQL backend with a health check that needs no query.

Its `flush` also empties the tables that are protected by triggers.
"""

import select
from collections.abc import Iterable

from django.db.backends.postgresql import base, operations


class DatabaseOperations(operations.DatabaseOperations):
    def execute_sql_flush(self, sql_list: Iterable[str]) -> None:
        """Empty tables, for `manage.py flush` and after a test.

        This sets the parameter `commerce.maintenance` to `on`, because otherwise triggers refuse to empty the history
        and items of orders. See `orders.history.maintenance`.
        """
        super().execute_sql_flush(["SET LOCAL commerce.maintenance = 'on'", *sql_list])


class DatabaseWrapper(base.DatabaseWrapper):
    ops_class = DatabaseOperations

    def is_usable(self) -> bool:
        """Return whether the server has kept the connection open. A closed connection makes the socket readable.

        Django calls this before a request's first query (CONN_HEALTH_CHECKS). Django's own check takes a round trip.
        """
        poll = select.poll()
        try:
            poll.register(self.connection, select.POLLIN)
        except self.Database.Error:
            return False
        return not poll.poll(0)
