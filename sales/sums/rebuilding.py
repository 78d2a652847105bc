"""Rebuild `SalesBucket` and `CustomerSummary` as a new generation, while consumers and readers go on.

1. The rebuild locks `sales_generations`. The lock waits for the consumers' current transactions, and makes their next
   ones wait. Under the lock, the rebuild announces the new generation and takes a snapshot. It then releases the lock.
2. The rebuild adds the events that the group had handled in the snapshot to the new generation. Meanwhile the consumers
   add every new event to both generations. So the new one has each event once: from the snapshot, or from a consumer.
3. Under the same lock, the new generation becomes the live one. Then the rebuild deletes the old one in steps.

A process that is killed on the way leaves the live generation as it was.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from django.db import connection, transaction

from events.database import Report
from sales.sums.recounting import LIVE_TABLES, another_connection, begin_snapshot, recount

REBUILD_LOCK_ID = 0x73616C6573
"""Key of the advisory lock that a rebuild holds. No other advisory lock of this database may have it."""
DELETED_ROWS = 10_000
"""Largest number of rows of an old generation that one statement deletes."""

BEGIN = """
    INSERT INTO sales_generations AS known (live, building, latest) VALUES (0, 1, 1)
    ON CONFLICT (id) DO UPDATE SET building = known.latest + 1, latest = known.latest + 1
    RETURNING building
    """
SWAP = "UPDATE sales_generations SET live = building, building = NULL WHERE building = %s"
ABANDON = "UPDATE sales_generations SET building = NULL WHERE building = %s"


class AlreadyRunning(Exception):
    """Another process is rebuilding."""


class EventsLost(Exception):
    """Events that the group has handled can no longer be counted, so a rebuild would lose their sums."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def rebuild(*, report: Report, drops_lost: bool = False) -> int:
    """Rebuild both read models, and return the number of events that the rebuild itself has counted.

    The number leaves out events that consumers handle meanwhile. Consumers add these events to the new sums themselves.

    Args:
        report: called with the part of the events that is counted, 0.0 to 1.0. If it raises, readers keep the old sums.
        drops_lost: whether to go on without the events of which no copy is left.

    Raises:
        AlreadyRunning: another process is rebuilding.
        EventsLost: no copy of some events is left, and `drops_lost` is false.
        django.db.Error: the database failed.
    """
    delete_old_generations()
    with closing(another_connection()) as counting:
        # Connect before `_begin` makes consumers wait.
        counting.ensure_connection()
        generation = _begin(counting)
        try:
            found = recount(counting, into=LIVE_TABLES, generation=generation, report=report)
            if found.lost and not drops_lost:
                raise EventsLost(found.lost)
            _execute(counting, "COMMIT")
            with _consumers_waiting() as cursor:
                cursor.execute(SWAP, [generation])
                if not cursor.rowcount:
                    raise AlreadyRunning
        except BaseException:
            with _consumers_waiting() as cursor:
                cursor.execute(ABANDON, [generation])
            raise
    delete_old_generations()
    return found.events


def is_interrupted() -> bool:
    """Return whether a rebuild was killed before its end.

    Until the next rebuild, consumers add each event to the unfinished read models as well as to the live ones.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT building FROM sales_generations WHERE building IS NOT NULL")
        if cursor.fetchone() is None:
            return False
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [REBUILD_LOCK_ID])
        return bool(cursor.fetchone()[0])


def delete_old_generations() -> None:
    """Delete, in steps, the rows of every generation except the live one and the one that a rebuild makes."""
    for table in LIVE_TABLES:
        for generation in _old_generations(table):
            while _execute(
                connection,
                f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - it is a constant
                f"SELECT ctid FROM {table} WHERE generation = %s LIMIT %s))",
                [generation, DELETED_ROWS],
            ):
                pass


def _begin(counting: Any) -> int:
    """Begin the snapshot on `counting`, store the number of a new generation of the read models, and return it.

    `counting` is a connection. No consumer adds events meanwhile. Afterwards, consumers add new events to the new
    generation, too. Raises AlreadyRunning if another process is rebuilding.
    """
    with _consumers_waiting() as cursor:
        begin_snapshot(counting)
        with counting.cursor() as snapshot:
            # This first statement of the transaction takes the snapshot.
            snapshot.execute("SELECT pg_try_advisory_xact_lock(%s)", [REBUILD_LOCK_ID])
            if not snapshot.fetchone()[0]:
                raise AlreadyRunning
        cursor.execute(BEGIN)
        return int(cursor.fetchone()[0])


@contextmanager
def _consumers_waiting() -> Iterator[Any]:
    """Yield a cursor in a transaction. Until its end, consumers wait before they add events; readers do not wait."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE sales_generations IN EXCLUSIVE MODE")
        yield cursor


def _old_generations(table: str) -> list[int]:
    """Return the numbers of the old generations (versions of the sums) that have rows in `table`.

    A generation is old if it is neither the live one nor the one that a rebuild makes.
    """
    # This looks into the index once for each generation. SELECT DISTINCT would read all rows.
    sql = f"""
        WITH RECURSIVE numbers AS (
            SELECT min(generation) AS number FROM {table}
            UNION ALL
            SELECT (SELECT min(generation) FROM {table} WHERE generation > numbers.number) FROM numbers
            WHERE numbers.number IS NOT NULL
        )
        SELECT number FROM numbers
        WHERE number IS NOT NULL AND number <> coalesce((SELECT live FROM sales_generations), 0)
            AND number IS DISTINCT FROM (SELECT building FROM sales_generations)
        """  # noqa: S608 - it is a constant
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [number for (number,) in cursor.fetchall()]


def _execute(database: Any, sql: str, parameters: list[Any] | None = None) -> int:
    """Execute `sql` and return the number of changed rows."""
    with database.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)
