"""A simulated shop: orders by a daily and a weekly pattern, random amounts with a heavy tail, and cancellations."""

import math
import random
from collections import defaultdict
from datetime import UTC, datetime

from sales.anomalies.series import DAY, HOUR, Sales, Series, step_of

FIRST_DAY = step_of(datetime(2026, 1, 5, tzinfo=UTC))
"""The first step of a simulation, at the beginning of a Monday."""
HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 11, 12, 13, 11, 10, 10, 11, 12, 14, 16, 17, 14, 9, 5)
"""Relative number of orders by hour of the day."""
WEEKDAYS = (1.0, 0.95, 0.95, 1.0, 1.2, 1.5, 1.3)
"""Relative number of orders by day of the week, from Monday on."""
CANCELLED_SHARE = 0.08
MEAN_STEPS_TO_CANCEL = 3 * HOUR
DAY_NOISE, HOUR_NOISE = 0.12, 0.12
"""Sigma of the log-normal factors by which a day and an hour differ from the pattern, as weather and chance do."""


class Shop:
    """Draws the sales of `days` days. The same seed gives the same sales."""

    def __init__(self, *, orders_a_day: float, days: int, seed: int, weekdays: tuple[float, ...] = WEEKDAYS) -> None:
        self._random = random.Random(seed)
        self.first, self.end = FIRST_DAY, FIRST_DAY + days * DAY
        self._amounts: defaultdict[int, list[int]] = defaultdict(list)
        self._cancelled: defaultdict[int, int] = defaultdict(int)
        for day in range(days):
            of_day = orders_a_day * weekdays[day % 7] / sum(weekdays) * 7 * self._noise(DAY_NOISE)
            for hour in range(24):
                of_hour = of_day * HOURS[hour] / sum(HOURS) * self._noise(HOUR_NOISE)
                for step in range(HOUR):
                    self._sell(FIRST_DAY + day * DAY + hour * HOUR + step, self._poisson(of_hour / HOUR))

    def surge(self, start: int, end: int, *, factor: int) -> None:
        """Multiply the number of orders of each step from `start` up to but excluding `end` by `factor`."""
        for step in range(start, end):
            self._sell(step, len(self._amounts[step]) * (factor - 1))

    def fall_silent(self, start: int, end: int) -> None:
        for step in range(start, end):
            self._amounts.pop(step, None)

    def cancel(self, start: int, end: int, *, share: float) -> None:
        """In each step from `start` up to but excluding `end`, cancel about `share` of the orders of the same step.

        `share` is 0.0 to 1.0.
        """
        for step in range(start, end):
            self._cancelled[step] += sum(self._random.random() < share for _ in self._amounts[step])

    def series(self) -> Series:
        steps = self._amounts.keys() | self._cancelled.keys()
        sales = {
            step: Sales(
                len(self._amounts.get(step, ())), sum(self._amounts.get(step, ())), self._cancelled.get(step, 0)
            )
            for step in steps
        }
        return Series(first=self.first, end=self.end, sales=sales)

    def _sell(self, step: int, orders: int) -> None:
        for _ in range(orders):
            self._amounts[step].append(self._cents())
            if self._random.random() < CANCELLED_SHARE:
                self._cancelled[step + int(self._random.expovariate(1 / MEAN_STEPS_TO_CANCEL))] += 1

    def _cents(self) -> int:
        """Return a random amount in hundredths. The median is about 3,000,000, which is 30,000.00.

        One in 200 amounts is multiplied by a number with a Pareto distribution (exponent 1.5), which has a heavy tail.
        """
        amount = self._random.lognormvariate(math.log(30_000), 0.9)
        if self._random.random() < 1 / 200:
            amount *= self._random.paretovariate(1.5)
        return round(amount * 100)

    def _noise(self, sigma: float) -> float:
        return self._random.lognormvariate(-sigma * sigma / 2, sigma)

    def _poisson(self, mean: float) -> int:
        """Return a number with a Poisson distribution, by Knuth's method. A mean above 30 is split into halves."""
        if mean > 30:
            return self._poisson(mean / 2) + self._poisson(mean / 2)
        limit, product, count = math.exp(-mean), self._random.random(), 0
        while product > limit:
            product *= self._random.random()
            count += 1
        return count
