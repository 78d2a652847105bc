"""Django's PostgreSQL backend, with a cheaper look at a connection before it is used again."""

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        """Whether the server has not hung up, which makes the socket readable.

        Django asks before every request (CONN_HEALTH_CHECKS), by a query: one of six round trips of placing an order.
        """
        poll = select.poll()
        try:
            poll.register(self.connection, select.POLLIN)
        except self.Database.Error:
            return False
        return not poll.poll(0)
