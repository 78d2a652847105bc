"""Read the sums that readers see (the live generation), and return them as the series that the rules judge."""

from django.db import connection

from orders.events import ORDER_CANCELLED, ORDER_CREATED
from sales.anomalies.rules import LONGEST_SILENCE, REFERENCE_WEEKS
from sales.anomalies.series import HOUR, STEP_MINUTES, WEEK, Sales, Series, start_of
from sales.models import LIVE

LOOK_BACK = LONGEST_SILENCE + REFERENCE_WEEKS * WEEK + HOUR
"""Number of steps before a judged step that the rules may read.

These steps cover the longest silence, and the earlier weeks that the rule `silence` compares with this silence.
"""

SALES = f"""
    SELECT floor(date_part('epoch', minute) / {STEP_MINUTES * 60})::bigint,
        coalesce(sum(count) FILTER (WHERE event_type = %(created)s), 0)::bigint,
        coalesce(sum(amount) FILTER (WHERE event_type = %(created)s), 0) * 100,
        coalesce(sum(count) FILTER (WHERE event_type = %(cancelled)s), 0)::bigint
    FROM sales_salesbucket
    WHERE generation = {LIVE} AND minute >= %(first)s AND minute < %(end)s
    GROUP BY 1
    """  # noqa: S608 - it consists of constants


def read_series(*, judged_from: int, end: int) -> Series:
    """Return the sales of each five-minute step from `LOOK_BACK` steps before `judged_from` up to but excluding `end`.

    The rules need these sales to judge the steps from `judged_from`. This takes one query.
    """
    first = judged_from - LOOK_BACK
    with connection.cursor() as cursor:
        cursor.execute(
            SALES,
            {
                "created": ORDER_CREATED,
                "cancelled": ORDER_CANCELLED,
                "first": start_of(first),
                "end": start_of(end),
            },
        )
        sales = {step: Sales(created, int(cents), cancelled) for step, created, cents, cancelled in cursor.fetchall()}
    return Series(first=first, end=end, sales=sales)
