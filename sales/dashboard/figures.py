"""Read the figures of the page *Sales*. Each query is bounded in what it reads, and in time."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import NamedTuple

from django.db import connection, transaction

from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID
from sales.anomalies.models import SalesAnomaly
from sales.dashboard.periods import SHIFT_DAYS, boundaries, same_time_before, today
from sales.intervals import Unit
from sales.models import LIVE
from sales.series import NOTHING, Sum

QUERY_TIMEOUT_MS = 4_000
"""Longest time of a query in milliseconds. The page's script gives up after eight seconds."""
MAX_ANOMALIES = 50
"""Largest number of anomalies that the page shows. The newest come first."""

SUMS = f"""
    SELECT width_bucket(minute, %(boundaries)s::timestamptz[]), event_type, sum(count)::bigint, sum(amount)
    FROM sales_salesbucket
    WHERE generation = {LIVE} AND minute >= %(first)s AND minute < %(end)s
    GROUP BY 1, 2
    """  # noqa: S608 - it consists of constants


class Totals(NamedTuple):
    """The sales of an interval."""

    created: Sum = NOTHING
    paid: Sum = NOTHING
    cancelled: Sum = NOTHING


class Figures(NamedTuple):
    """All figures of the page at one moment."""

    starts: list[datetime]
    """Beginnings of the chart's intervals."""
    end: datetime
    series: list[Totals]
    earlier: list[Totals]
    """The sales of the same intervals `SHIFT_DAYS` days earlier.

    The last interval is in progress. So its earlier sales end at `same_time_before`.
    """
    today: Totals
    yesterday: Totals
    """Yesterday's sales up to the same time of day."""
    anomalies: list[SalesAnomaly]
    """The anomalies of the chart's time, at most `MAX_ANOMALIES`, newest first."""


def read_figures(now: datetime, *, unit: Unit, zone: tzinfo) -> Figures:
    """Read all figures. Raise django.db.OperationalError if a query takes longer than `QUERY_TIMEOUT_MS`."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(QUERY_TIMEOUT_MS)])
        shown = boundaries(now, unit=unit, zone=zone)
        earlier = boundaries(now, unit=unit, zone=zone, days_ago=SHIFT_DAYS[unit])
        # The last interval is in progress, and is compared with the same part of the earlier one.
        earlier[-1] = max(same_time_before(now, unit=unit, zone=zone), earlier[-2])
        yesterday, _, so_far = read_totals(list(today(now, zone)))
        found = SalesAnomaly.objects.filter(ended_at__gt=shown[0], started_at__lt=shown[-1])
        return Figures(
            starts=shown[:-1],
            end=shown[-1],
            series=read_totals(shown),
            earlier=read_totals(earlier),
            today=so_far,
            yesterday=yesterday,
            anomalies=list(found.order_by("-started_at", "-id")[:MAX_ANOMALIES]),
        )


def read_totals(limits: Sequence[datetime]) -> list[Totals]:
    """Return the sales from each limit up to but excluding the next one, by one query. The limits are ascending."""
    with connection.cursor() as cursor:
        cursor.execute(SUMS, {"boundaries": list(limits), "first": limits[0], "end": limits[-1]})
        found = {(number, event_type): Sum(count, amount) for number, event_type, count, amount in cursor.fetchall()}
    return [
        Totals(
            *(found.get((number, event_type), NOTHING) for event_type in (ORDER_CREATED, ORDER_PAID, ORDER_CANCELLED))
        )
        for number in range(1, len(limits))
    ]
