"""Run SQL in the database of the running site. Django is not used, because it is connected to a test database."""

import os
from typing import Any

import psycopg2

from events.outbox.relay import TURN_LOCK_ID


def rows(sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Execute and commit one statement, and return its rows.

    Each call opens a new connection, because the server may have crashed since the last one.
    """
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def value(sql: str, **parameters: Any) -> Any:
    """Execute a statement that returns one row of one column, and return this value."""
    ((found,),) = rows(sql, **parameters)
    return found


def pending() -> int:
    """Return the number of pending rows of the outbox, whose messages still have to reach Kafka."""
    return int(value("SELECT count(*) FROM events_outboxevent WHERE published_at IS NULL AND parked_at IS NULL"))


def parked() -> int:
    """Return the number of outbox rows that are parked, because Kafka will never accept their messages."""
    return int(value("SELECT count(*) FROM events_outboxevent WHERE parked_at IS NOT NULL"))


def oldest_pending_seconds() -> float:
    """Return the age in seconds of the oldest pending row of the outbox; 0 if there is none."""
    return float(
        value(
            "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0) FROM events_outboxevent"
            " WHERE published_at IS NULL AND parked_at IS NULL"
        )
    )


def last_order_id() -> int:
    return int(value("SELECT max(id) FROM orders_order"))


def published_paths(order_id: int) -> list[str | None]:
    """Return the path (`fast` or `relay`) that published each event of an order, in the order of the sequence numbers.

    The path of a pending event is None.
    """
    sql = "SELECT published_path FROM events_outboxevent WHERE stream = %(stream)s ORDER BY sequence"
    return [path for (path,) in rows(sql, stream=f"order-{order_id}")]


def holder_of_the_turn() -> str | None:
    """Return the name (PGAPPNAME) of the relay whose turn it is to send; None if no relay has the turn.

    Relays send in turns. The relay that holds the advisory lock `TURN_LOCK_ID` has the turn.
    """
    holders = rows(
        "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory'"
        " AND granted AND (classid::bigint << 32) + objid::bigint = %(lock)s",
        lock=TURN_LOCK_ID,
    )
    return str(holders[0][0]) if holders else None
