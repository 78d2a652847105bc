"""Count anew the events that the group has handled.

Our own events are in the outbox and the history; those of other programs are in `ForeignEvent`. An event counts if the
inbox has an entry of the group with its id, type, stream and user. So a snapshot of the database yields exactly the
sums that the group had added up at that moment.
"""

from typing import Any, NamedTuple

from django.db import connection

from events.database import Report
from orders.events import STREAM_PREFIX
from orders.history import RECORDED_EVENTS
from sales.models import GROUP

STEP_EVENTS = 20_000
"""Largest number of events that one statement reads. Such a statement takes about half a second."""
REBUILT_PARTITION = -1
"""Value of `partition` in rows of sums that a rebuild writes. Rows that a consumer writes have the real partition."""


class Tables(NamedTuple):
    """Names of the two tables to which `recount` adds sums. They have the columns and the keys of the read models."""

    buckets: str
    summaries: str


LIVE_TABLES = Tables("sales_salesbucket", "sales_customersummary")

# Materialized, because PostgreSQL may otherwise read the JSON of rows that the group has not handled. OFFSET 0 makes it
# look up each event in the indexes. Without it, it reads the whole inbox in every step.
_OWN = f"""
    WITH handled AS MATERIALIZED (
        SELECT recorded.event_type, recorded.value, entry.owner
        FROM ({RECORDED_EVENTS}) AS recorded
        CROSS JOIN LATERAL (
            SELECT entry.owner FROM events_inboxentry AS entry
            WHERE entry."group" = '{GROUP}' AND entry.event_id = recorded.event_id
                AND entry.event_type = recorded.event_type AND entry.stream = recorded.stream
            OFFSET 0
        ) AS entry
        WHERE recorded.id > %(after)s AND recorded.id <= %(upto)s
            AND NOT EXISTS (
                SELECT FROM sales_foreignevent AS copy WHERE copy.event_id = recorded.event_id OFFSET 0
            )
    ),
    events AS MATERIALIZED (
        SELECT handled.event_type, event."userId" AS user_id, event."timestamp" AS occurred_at,
            event."totalAmount" AS amount
        FROM handled, json_to_record(convert_from(handled.value, 'UTF8')::json)
            AS event ("userId" bigint, "timestamp" timestamptz, "totalAmount" numeric)
        WHERE event."userId" = handled.owner
    )
    """  # noqa: S608 - it consists of constants
_FOREIGN = f"""
    WITH events AS MATERIALIZED (
        SELECT event.event_type, event.user_id, event.occurred_at, event.amount
        FROM sales_foreignevent AS event
        CROSS JOIN LATERAL (
            SELECT FROM events_inboxentry AS entry
            WHERE entry."group" = '{GROUP}' AND entry.event_id = event.event_id
                AND entry.event_type = event.event_type AND entry.stream = '{STREAM_PREFIX}' || event.order_id
                AND entry.owner = event.user_id
            OFFSET 0
        ) AS entry
        WHERE event.id > %(after)s AND event.id <= %(upto)s
    )
    """  # noqa: S608 - it consists of constants


def _adding(tables: Tables) -> str:
    """Return the rest of an SQL statement, after a WITH clause that defines `events`.

    The whole statement adds these events to `tables`, and returns the number of events. It takes the parameter
    `generation`.
    """
    return f"""
    , added_to_buckets AS (
        INSERT INTO {tables.buckets} AS bucket (generation, minute, event_type, partition, count, amount)
        SELECT %(generation)s, date_trunc('minute', occurred_at, 'UTC'), event_type, {REBUILT_PARTITION}, count(*),
            sum(amount)
        FROM events GROUP BY 2, 3
        ON CONFLICT (generation, minute, event_type, partition) DO UPDATE
        SET count = bucket.count + EXCLUDED.count, amount = bucket.amount + EXCLUDED.amount
    ),
    added_to_summaries AS (
        INSERT INTO {tables.summaries} AS summary
            (generation, user_id, partition, orders, paid, cancelled, amount_paid, last_order_at)
        SELECT %(generation)s, user_id, {REBUILT_PARTITION},
            count(*) FILTER (WHERE event_type = 'ORDER_CREATED'),
            count(*) FILTER (WHERE event_type = 'ORDER_PAID'),
            count(*) FILTER (WHERE event_type = 'ORDER_CANCELLED'),
            coalesce(sum(amount) FILTER (WHERE event_type = 'ORDER_PAID'), 0),
            max(occurred_at) FILTER (WHERE event_type = 'ORDER_CREATED')
        FROM events GROUP BY user_id
        ON CONFLICT (generation, user_id, partition) DO UPDATE
        SET orders = summary.orders + EXCLUDED.orders,
            paid = summary.paid + EXCLUDED.paid,
            cancelled = summary.cancelled + EXCLUDED.cancelled,
            amount_paid = summary.amount_paid + EXCLUDED.amount_paid,
            last_order_at = greatest(summary.last_order_at, EXCLUDED.last_order_at)
    )
    SELECT count(*) FROM events
    """  # noqa: S608 - it consists of constants


class Source(NamedTuple):
    """Rows with ascending ids that `recount` walks through."""

    rows: str
    """Table, or subquery in parentheses, with the rows of this source. Its column `id` has their ids."""
    events: str
    """WITH clause `events`. From the rows of this source, it selects the events that the group has handled.

    Its parameters `after` (excluded) and `upto` (included) limit the ids of these rows.
    """


SOURCES = (Source(f"({RECORDED_EVENTS})", _OWN), Source("sales_foreignevent", _FOREIGN))


class Recounted(NamedTuple):
    """The result of a recount."""

    events: int
    """Number of events that were counted."""
    lost: int
    """Number of events that the group has handled, and of which no table has a copy any more."""


def recount(database: Any, *, into: Tables, generation: int, report: Report) -> Recounted:
    """Add the sums of all events that the sales group has handled to the tables `into`.

    `database` is one of Django's connections, with an open transaction in which the sums are added. The transaction
    must be REPEATABLE READ, because the recount takes many statements. Its statement timeout is switched off until its
    end. The added rows get the number `generation` (see `sales.models`). `report` is called with the part that is done,
    from 0.0 to 1.0.
    """
    counted = 0
    with database.cursor() as cursor:
        # Each step is short, but the count of the inbox, and the caller's sums over all rows, may exceed a time limit.
        cursor.execute("SET LOCAL statement_timeout = 0")
        ranges = [_range_of_ids(cursor, source) for source in SOURCES]
        total, before = sum(end - start for start, end in ranges), 0
        for source, (start, end) in zip(SOURCES, ranges, strict=True):
            after = start
            while after < end:
                upto = _end_of_step(cursor, source, after) or end
                cursor.execute(source.events + _adding(into), {"after": after, "upto": upto, "generation": generation})
                counted += cursor.fetchone()[0]
                after = upto
                report((before + after - start) / total)
            before += end - start
        cursor.execute('SELECT count(*) FROM events_inboxentry WHERE "group" = %s', [GROUP])
        handled = cursor.fetchone()[0]
    return Recounted(counted, handled - counted)


def _range_of_ids(cursor: Any, source: Source) -> tuple[int, int]:
    """Return the number before the source's first id, and its last id; two zeros if it has no rows."""
    found = []
    for order in ("ASC", "DESC"):
        cursor.execute(f"SELECT id FROM {source.rows} AS source ORDER BY id {order} LIMIT 1")  # noqa: S608 - it consists of constants
        found += cursor.fetchall()
    return (found[0][0] - 1, found[1][0]) if found else (0, 0)


def _end_of_step(cursor: Any, source: Source, after: int) -> int | None:
    """Return the id of the last of the `STEP_EVENTS` rows after the id `after`; None if fewer rows are left."""
    cursor.execute(
        f"SELECT id FROM {source.rows} AS source WHERE id > %s ORDER BY id LIMIT 1 OFFSET %s",  # noqa: S608 - it is a constant
        [after, STEP_EVENTS - 1],
    )
    row = cursor.fetchone()
    return row[0] if row else None


def begin_snapshot(database: Any) -> None:
    """Begin a transaction on the connection `database`.

    All its statements see the database as the first one of them finds it.
    """
    with database.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")


def another_connection() -> Any:
    """Return a new connection to the same database. The caller closes it."""
    return connection.copy()
