"""The input of the rules: sales by step, an interval of five minutes.

A step is identified by a number: the minutes since 1970 divided by `STEP_MINUTES`. Steps make the arithmetic of weeks
and windows exact, and are the same for every process.
"""

from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

STEP_MINUTES = 5
"""Length of a step in minutes. The rules judge a step only after its end, so an anomaly is found up to a step late."""
STEP = timedelta(minutes=STEP_MINUTES)
HOUR, DAY, WEEK = (timedelta(**{unit: 1}) // STEP for unit in ("hours", "days", "weeks"))
"""Number of steps of an hour, a day and a week."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def step_of(moment: datetime) -> int:
    """Return the number of the five-minute step that contains `moment`. Steps are counted from 1970."""
    return (moment - EPOCH) // STEP


def start_of(step: int) -> datetime:
    return EPOCH + step * STEP


class Sales(NamedTuple):
    """The total sales of one or more five-minute steps."""

    created: int = 0
    """Number of created orders."""
    cents: int = 0
    """Amount of the created orders, in hundredths. An int is exact even for an amount of 26 digits; a float is not."""
    cancelled: int = 0
    """Number of cancelled orders."""


class Series:
    """The sales of consecutive five-minute steps. The sum over any range of steps takes constant time."""

    def __init__(self, *, first: int, end: int, sales: Mapping[int, Sales]) -> None:
        """Create the series of steps from `first` up to but excluding `end`. Steps missing in `sales` sold nothing."""
        self.first, self.end = first, end
        steps = range(first, end)
        self._created, self._cents, self._cancelled = (
            list(accumulate((sales[step][field] if step in sales else 0 for step in steps), initial=0))
            for field in range(len(Sales._fields))
        )
        self._sold = [step for step in steps if step in sales and sales[step].created > 0]

    @property
    def first_sale(self) -> int:
        """The first step of this series with an order; `end` without orders. No reference window begins before it."""
        return self._sold[0] if self._sold else self.end

    def last_sale_before(self, step: int) -> int | None:
        """Return the last step with an order before `step`; None if there is none."""
        position = bisect_left(self._sold, step)
        return self._sold[position - 1] if position else None

    def sum(self, start: int, end: int) -> Sales:
        """Return the sales of the steps from `start` up to but excluding `end`. The series must have all of them."""
        first, last = start - self.first, end - self.first
        return Sales(*(sums[last] - sums[first] for sums in (self._created, self._cents, self._cancelled)))
