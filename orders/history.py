"""The event store: the events of every order, from the outbox and from the history to which old rows are moved."""

from orders.events import STREAM_PREFIX
from orders.models import OrderHistory

_COLUMNS = "id, event_id, event_type, stream, sequence, value, created_at, recorded_at"

RECORDED_EVENTS = f"""
    SELECT {_COLUMNS} FROM (
        SELECT {_COLUMNS} FROM events_outboxevent
        UNION ALL
        SELECT {_COLUMNS} FROM {OrderHistory._meta.db_table}
    ) AS stored
    WHERE stream ^@ '{STREAM_PREFIX}'
    """  # noqa: S608 - it contains no input
"""Subquery over the events of all orders: `FROM ({RECORDED_EVENTS}) AS recorded`. It contains no `%`.

A row moves from one table to the other in one transaction, so one snapshot has each event once. PostgreSQL looks up
conditions on `id`, `event_id` and `stream` in the indexes of both tables, also those of a join. For that the WHERE
stands outside of the UNION: PostgreSQL looks up no join in a branch that has a condition of its own.
"""
