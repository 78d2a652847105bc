"""Compare the read models with what the group has handled, in one snapshot."""

from contextlib import closing
from typing import Any, NamedTuple

from events.database import Report
from events.wire.timestamps import rfc3339
from sales.models import LIVE
from sales.sums.recounting import Tables, another_connection, begin_snapshot, recount

NAMED = 10
"""A comparison describes at most this many wrong sums of intervals, and at most this many customers with wrong sums."""
TEMPORARY = Tables("recounted_bucket", "recounted_summary")

CREATE = """
    CREATE TEMPORARY TABLE recounted_bucket (LIKE sales_salesbucket INCLUDING INDEXES) ON COMMIT DROP;
    CREATE TEMPORARY TABLE recounted_summary (LIKE sales_customersummary INCLUDING INDEXES) ON COMMIT DROP;
    """
COMPARE_BUCKETS = f"""
    CREATE TEMPORARY TABLE compared_bucket ON COMMIT DROP AS
    SELECT minute, event_type, coalesce(kept.count, 0) AS kept, coalesce(kept.amount, 0.00) AS kept_amount,
        coalesce(counted.count, 0) AS counted, coalesce(counted.amount, 0.00) AS counted_amount
    FROM (
        SELECT minute, event_type, sum(count) AS count, sum(amount) AS amount
        FROM sales_salesbucket WHERE generation = {LIVE} GROUP BY 1, 2
    ) AS kept
    FULL JOIN recounted_bucket AS counted USING (minute, event_type)
    """  # noqa: S608 - it consists of constants
COMPARE_SUMMARIES = f"""
    CREATE TEMPORARY TABLE compared_summary ON COMMIT DROP AS
    SELECT user_id,
        concat_ws(' / ', coalesce(kept.orders, 0), coalesce(kept.paid, 0), coalesce(kept.cancelled, 0),
            coalesce(kept.amount_paid, 0.00), kept.last_order_at) AS kept,
        concat_ws(' / ', coalesce(counted.orders, 0), coalesce(counted.paid, 0), coalesce(counted.cancelled, 0),
            coalesce(counted.amount_paid, 0.00), counted.last_order_at) AS counted
    FROM (
        SELECT user_id, sum(orders) AS orders, sum(paid) AS paid, sum(cancelled) AS cancelled,
            sum(amount_paid) AS amount_paid, max(last_order_at) AS last_order_at
        FROM sales_customersummary WHERE generation = {LIVE} GROUP BY 1
    ) AS kept
    FULL JOIN recounted_summary AS counted USING (user_id)
    """  # noqa: S608 - it consists of constants


WRONG = "(kept, kept_amount) IS DISTINCT FROM (counted, counted_amount)"
WRONG_BUCKETS = f"""
    SELECT count(DISTINCT minute), count(DISTINCT minute) FILTER (WHERE {WRONG}) FROM compared_bucket
    """  # noqa: S608 - it consists of constants
WRONG_SUMMARIES = "SELECT count(*), count(*) FILTER (WHERE kept <> counted) FROM compared_summary"
FIRST_WRONG_BUCKETS = f"""
    SELECT minute, event_type, kept, kept_amount, counted, counted_amount FROM compared_bucket
    WHERE {WRONG} ORDER BY minute, event_type LIMIT %s
    """  # noqa: S608 - it consists of constants
FIRST_WRONG_SUMMARIES = (
    "SELECT user_id, kept, counted FROM compared_summary WHERE kept <> counted ORDER BY user_id LIMIT %s"
)


class Verified(NamedTuple):
    """What `verify` has found."""

    intervals: int
    """Number of minutes that have events or kept sums."""
    wrong_intervals: int
    customers: int
    wrong_customers: int
    problems: list[str]
    """Sentences about the first wrong sums: at most `NAMED` about intervals, and at most `NAMED` about customers."""
    lost: int
    """Number of handled events of which no copy is left. `verify_sales` reports the sums that contain them as wrong."""


def verify(*, report: Report) -> Verified:
    """Compare the live sums with the events that the group `sales` has handled.

    While the events are counted, `report` is called with the share that is done, from 0.0 to 1.0.

    Raises:
        django.db.Error: the database failed.
    """
    with closing(another_connection()) as database:
        begin_snapshot(database)
        with database.cursor() as cursor:
            cursor.execute(CREATE)
        found = recount(database, into=TEMPORARY, generation=0, report=report)
        with database.cursor() as cursor:
            intervals, wrong_intervals = _counts(cursor, COMPARE_BUCKETS, WRONG_BUCKETS)
            customers, wrong_customers = _counts(cursor, COMPARE_SUMMARIES, WRONG_SUMMARIES)
            problems = [*_wrong_buckets(cursor), *_wrong_summaries(cursor)]
            cursor.execute("ROLLBACK")
    return Verified(intervals, wrong_intervals, customers, wrong_customers, problems, found.lost)


def _counts(cursor: Any, compare: str, count: str) -> tuple[int, int]:
    cursor.execute(compare)
    cursor.execute(count)
    rows, wrong = cursor.fetchone()
    return rows, wrong


def _wrong_buckets(cursor: Any) -> list[str]:
    cursor.execute(FIRST_WRONG_BUCKETS, [NAMED])
    return [
        f"{rfc3339(minute)} {event_type}: the table has {kept} of {kept_amount}, and the events say {counted} of "
        f"{counted_amount}"
        for minute, event_type, kept, kept_amount, counted, counted_amount in cursor.fetchall()
    ]


def _wrong_summaries(cursor: Any) -> list[str]:
    cursor.execute(FIRST_WRONG_SUMMARIES, [NAMED])
    return [
        f"user {user_id}: the table has {kept}, and the events say {counted} "
        "(orders / paid / cancelled / amount paid / last order)"
        for user_id, kept, counted in cursor.fetchall()
    ]
