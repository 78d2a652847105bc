"""Queries of the read models.

A rebuild writes the rows anew, as another generation, and then makes that one the live generation. Each function here
executes one statement on the live generation, so it never mixes rows of two generations.
"""

from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from django.db import connection

from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID
from sales.intervals import Intervals
from sales.models import LIVE, ZERO

SERIES = f"""
    SELECT date_trunc(%(unit)s, minute, 'UTC'), event_type, sum(count)::bigint, sum(amount)
    FROM sales_salesbucket
    WHERE generation = {LIVE} AND minute BETWEEN %(first)s AND %(last)s
    GROUP BY 1, 2
    """  # noqa: S608 - it consists of constants
SUMMARY = f"""
    SELECT coalesce(sum(orders), 0)::bigint, coalesce(sum(paid), 0)::bigint, coalesce(sum(cancelled), 0)::bigint,
        coalesce(sum(amount_paid), 0.00), max(last_order_at)
    FROM sales_customersummary
    WHERE generation = {LIVE} AND user_id = %s
    """  # noqa: S608 - it consists of constants


class Sum(NamedTuple):
    """The number of events of one type, and the sum of their amounts."""

    number: int
    amount: Decimal


NOTHING = Sum(0, ZERO)


class Interval(NamedTuple):
    """The sales of one interval."""

    start: datetime
    created: Sum
    paid: Sum
    cancelled: Sum


class Summary(NamedTuple):
    """The counts of one customer's orders, the amount paid, and the time of the newest order."""

    orders: int
    paid: int
    cancelled: int
    amount_paid: Decimal
    last_order_at: datetime | None


def read_series(intervals: Intervals) -> list[Interval]:
    """Return the sales of each of the intervals, oldest first. An interval without events has zeros."""
    found: dict[datetime, dict[str, Sum]] = defaultdict(dict)
    with connection.cursor() as cursor:
        cursor.execute(SERIES, {"unit": intervals.unit, "first": intervals.first_minute, "last": intervals.last_minute})
        for start, event_type, number, amount in cursor.fetchall():
            found[start][event_type] = Sum(number, amount)
    nothing: dict[str, Sum] = {}
    return [
        Interval(
            start=start,
            created=(of := found.get(start, nothing)).get(ORDER_CREATED, NOTHING),
            paid=of.get(ORDER_PAID, NOTHING),
            cancelled=of.get(ORDER_CANCELLED, NOTHING),
        )
        for start in intervals.starts()
    ]


def read_summary(user_id: int) -> Summary:
    """Return the summary of a customer, with zeros for a user without orders."""
    with connection.cursor() as cursor:
        cursor.execute(SUMMARY, [user_id])
        return Summary(*cursor.fetchone())
