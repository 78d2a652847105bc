"""Django's PostgreSQL backend with a health check of connections that needs no query."""

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        """Return whether the server has kept the connection open. A closed connection makes the socket readable.

        Django calls this before every request (CONN_HEALTH_CHECKS). Django's own check takes a round trip.
        """
        poll = select.poll()
        try:
            poll.register(self.connection, select.POLLIN)
        except self.Database.Error:
            return False
        return not poll.poll(0)
