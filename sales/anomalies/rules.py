"""The rules that find anomalies: pure functions over a series of closed steps of five minutes.

What is usual is learnt from three windows in each of the last four weeks: the window at the same time, the one an hour
earlier, and the one an hour later. A median and the median absolute deviation (MAD) describe it, because one strange
week does not move them. See docs/decisions/0022-anomalies-of-sales.md for the choice of rules and windows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final, NamedTuple

from django.conf import settings

from sales.anomalies.series import HOUR, WEEK, Sales, Series
from sales.events import AnomalyRule

SURGE: Final = "SURGE"
CANCELLATIONS: Final = "CANCELLATIONS"
SILENCE: Final = "SILENCE"

WINDOWS = (HOUR // 4, HOUR, 6 * HOUR)
"""Lengths of the windows of `surge` and `cancellations`, in steps of five minutes.

A window begins at a multiple of its length. The short window warns a busy shop in time. In a small shop, only the long
window has enough orders.
"""
REFERENCE_WEEKS = 4
"""What is usual in a window is learnt from this number of weeks before it."""
MIN_REFERENCES = 6
"""Smallest number of earlier windows from which the rules learn what is usual: three windows in each of two weeks.

If the history of a shop is too short for this, its windows are not judged.
"""
REFERENCE_SHIFTS = (-HOUR, 0, HOUR)
"""Shifts of the three reference windows of each earlier week, in steps: an hour earlier, none, an hour later.

Summer time moves the customers' habits by an hour. With the shifts, a week before the change has the right hour, too.
"""
MAD_TO_SIGMA = 1.4826
"""Factor from the median absolute deviation (MAD) to the standard deviation, for normally distributed values."""
AMOUNT_NOISE = 2.0
"""Standard deviation of a window's total amount, in units of an order's mean amount times the square root of n.

n is the mean number of orders in such a window. The number of orders varies at random (a Poisson distribution), as
their amounts do. So the value is 1 if all amounts are equal, and 2 if they are log-normal with sigma 1.2.
"""
MIN_CANCEL_RATIO = 0.05
"""Smallest usual cancel ratio from which `cancellations` estimates how much the ratio varies by chance.

For a smaller usual ratio, this one is taken. Otherwise the estimate would be 0 in a shop that usually has no
cancellations.
"""
SHORTEST_SILENCE = HOUR // 6
"""Smallest number of steps of a silence."""
LONGEST_SILENCE = WEEK
"""Longest silence that is judged, in five-minute steps.

A silence is compared with the same hours of earlier weeks, which would overlap a silence of more than a week.
"""
SILENCE_SPREADS = 3.0
"""A silence is found only if the usual number of orders at that time is greater than this many spreads.

The usual number is the median of the reference windows. A spread is an estimate of their standard deviation.
"""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The settings of the rules. `commerce.settings` says why each has its default."""

    spreads: float
    """A surge or a wave of cancellations is more than this many spreads above the usual.

    A spread is an estimate of the standard deviation. See `_far_above`.
    """
    surge_factor: float
    """The amount of a surge is more than this many times the usual."""
    surge_orders: int
    """A surge has at least this many orders."""
    cancel_ratio: float
    """A wave of cancellations has at least this many cancelled orders for each created one."""
    cancel_orders: int
    """A wave of cancellations has at least this many cancelled orders."""
    silence_orders: int
    """A silence is found only if the same hours of earlier weeks usually have at least this many orders."""


def configured_thresholds() -> Thresholds:
    """Return the thresholds of the settings."""
    return Thresholds(
        spreads=settings.SALES_ANOMALY_SPREADS,
        surge_factor=settings.SALES_SURGE_FACTOR,
        surge_orders=settings.SALES_SURGE_ORDERS,
        cancel_ratio=settings.SALES_CANCEL_RATIO,
        cancel_orders=settings.SALES_CANCEL_ORDERS,
        silence_orders=settings.SALES_SILENCE_ORDERS,
    )


class Finding(NamedTuple):
    """An anomaly that a rule has found in the five-minute steps from `start` up to but excluding `end`."""

    rule: AnomalyRule
    start: int
    end: int
    observed: float
    """The value that the rule has measured.

    SURGE: the total amount of the created orders, in hundredths. CANCELLATIONS: the cancel ratio. SILENCE: the number
    of orders.
    """
    usual: float
    """The median of the same value as `observed`, over the windows of earlier weeks that `references` returns."""


Rule = Callable[[Series, int, int, Thresholds], Finding | None]
"""A function that judges one window, and returns None if it finds no anomaly.

Its arguments are the series, the first step of the window, the step after the window's last one, and the thresholds.
"""


def judge(series: Series, end: int, thresholds: Thresholds) -> Iterator[Finding]:
    """Yield the anomalies whose interval ends where the step `end` begins.

    These are the surges and waves of cancellations in the windows that end there, and a silence since the last order.
    A window's anomaly is left out if its rule also finds one in a shorter window within that window.
    """
    for length in WINDOWS:
        if end % length == 0:
            for rule in (surge, cancellations):
                if finding := _found_first(rule, series, end - length, end, thresholds):
                    yield finding
    last_sale = series.last_sale_before(end)
    if last_sale is not None and (finding := silence(series, last_sale + 1, end, thresholds)):
        yield finding


def _found_first(rule: Rule, series: Series, start: int, end: int, thresholds: Thresholds) -> Finding | None:
    """Return the finding of `rule` in the steps from `start` up to but excluding `end`. Return None without one.

    Also return None if `rule` finds something in a shorter window within these steps: `judge` has yielded this finding
    when the shorter window ended.
    """
    for length in WINDOWS[: WINDOWS.index(end - start)]:
        for part in range(start, end, length):
            if rule(series, part, part + length, thresholds):
                return None
    return rule(series, start, end, thresholds)


def surge(series: Series, start: int, end: int, thresholds: Thresholds) -> Finding | None:
    """Find a surge: the total amount of the orders created in a window is far above the usual. Return None without one.

    The window has the five-minute steps from `start` up to but excluding `end`. One order of a large amount is no
    surge, so one of two more conditions must hold. Either the number of orders is far above the usual, too, or the
    amount stays far above the usual if the step with the largest amount is left out.
    """
    now = series.sum(start, end)
    if now.created < thresholds.surge_orders:
        return None
    before = references(series, start, end)
    if not before:
        return None
    usual = median(one.cents for one in before)
    usual_orders = median(one.created for one in before)
    noise = AMOUNT_NOISE * usual / sqrt(usual_orders) if usual_orders else 0.0
    least = max(
        thresholds.surge_factor * usual,
        _far_above(usual, [one.cents for one in before], noise=noise, thresholds=thresholds),
    )
    if now.cents <= least:
        return None
    largest = max(series.sum(step, step + 1).cents for step in range(start, end))
    is_of_many_steps = now.cents - largest > least * (end - start - 1) / (end - start)
    if not is_of_many_steps and not _is_far_above(now.created, [one.created for one in before], thresholds):
        return None
    return Finding(SURGE, start, end, now.cents, usual)


def cancellations(series: Series, start: int, end: int, thresholds: Thresholds) -> Finding | None:
    """Find a ratio of cancelled to created orders far above the usual, from the step `start` up to but excluding `end`.

    The number of cancelled orders must be far above the usual, too. At night, customers cancel orders of the day, and
    the few new orders would make the ratio high.
    """
    now = series.sum(start, end)
    ratio = _cancel_ratio(now)
    if now.cancelled < thresholds.cancel_orders or ratio < thresholds.cancel_ratio:
        return None
    before = references(series, start, end)
    if not before or not _is_far_above(now.cancelled, [one.cancelled for one in before], thresholds):
        return None
    ratios = [_cancel_ratio(one) for one in before]
    usual = median(ratios)
    noise = sqrt(max(usual, MIN_CANCEL_RATIO) / max(now.created, 1))
    is_far_above = ratio > _far_above(usual, ratios, noise=noise, thresholds=thresholds)
    return Finding(CANCELLATIONS, start, end, ratio, usual) if is_far_above else None


def silence(series: Series, start: int, end: int, thresholds: Thresholds) -> Finding | None:
    """Find a silence: no order is created at a time that usually has many. Return None without one.

    The silence lasts from the step `start` up to but excluding the step `end`. The caller has made sure that `start` is
    the step after the last order. Return None if the silence is longer than `LONGEST_SILENCE`.

    The smaller the shop, the longer the silence must be: a busy shop is found silent after minutes, and a shop with ten
    orders a day after two days.
    """
    if not SHORTEST_SILENCE <= end - start <= LONGEST_SILENCE:
        return None
    before = [one.created for one in references(series, start, end)]
    if not before:
        return None
    usual = median(before)
    is_busy = usual >= thresholds.silence_orders and usual > SILENCE_SPREADS * _spread(before, usual)
    return Finding(SILENCE, start, end, 0, usual) if is_busy else None


def references(series: Series, start: int, end: int) -> Sequence[Sales]:
    """Return the sales of the earlier windows to compare with the steps from `start` up to but excluding `end`.

    Return an empty sequence if the history is too short.
    """
    starts = [start - weeks * WEEK + shift for weeks in range(1, REFERENCE_WEEKS + 1) for shift in REFERENCE_SHIFTS]
    found = [series.sum(one, one + end - start) for one in starts if one >= series.first_sale]
    return found if len(found) >= MIN_REFERENCES else ()


def _is_far_above(count: int, before: Sequence[int], thresholds: Thresholds) -> bool:
    """Return whether `count` is far above the counts `before`. By chance, a count varies by about its square root."""
    usual = median(before)
    return count > _far_above(usual, before, noise=sqrt(usual), thresholds=thresholds)


def _far_above(usual: float, before: Sequence[float], *, noise: float, thresholds: Thresholds) -> float:
    """Return the value above which a measure is far above its usual value.

    `usual` is the median of the earlier values `before`. Their spread is computed from their MAD (median absolute
    deviation). The MAD of a dozen values may be small by chance, so the spread is at least `noise`, the spread of pure
    chance.
    """
    return usual + thresholds.spreads * max(noise, _spread(before, usual))


def _spread(values: Sequence[float], middle: float) -> float:
    return MAD_TO_SIGMA * median(abs(value - middle) for value in values)


def _cancel_ratio(sales: Sales) -> float:
    return sales.cancelled / max(sales.created, 1)
