"""The rules on simulated shops: planted anomalies are found, and quiet months raise at most one false alarm."""

import pytest

from sales.anomalies.rules import CANCELLATIONS, SILENCE, SURGE, configured_thresholds, judge
from sales.anomalies.series import DAY, HOUR, WEEK, Series
from sales.anomalies.tests.simulation import FIRST_DAY, WEEKDAYS, Shop

HISTORY_DAYS = 28
MONTH_DAYS = 30
OFFICE_WEEK = (1, 1, 1, 1, 1, 0.01, 0)
"""Relative number of orders by day of the week, for a shop that hardly sells at weekends."""


def alarms(series: Series, *, since: int) -> dict[tuple[str, int], int]:
    """Judge the series at each step after `since`. Return the end of each anomaly, by rule and start, in steps.

    If an anomaly is found again, its first end counts.
    """
    found: dict[tuple[str, int], int] = {}
    for end in range(since + 1, series.end + 1):
        for finding in judge(series, end, configured_thresholds()):
            found.setdefault((finding.rule, finding.start), finding.end)
    return found


@pytest.mark.parametrize("weekdays", [WEEKDAYS, OFFICE_WEEK], ids=["every day", "weekdays only"])
@pytest.mark.parametrize("orders_a_day", [1, 5, 50, 500, 5_000, 20_000])
def test_quiet_month_raises_at_most_one_false_alarm(orders_a_day: int, weekdays: tuple[float, ...]) -> None:
    days = HISTORY_DAYS + MONTH_DAYS
    for seed in range(8 if orders_a_day <= 500 else 2):
        shop = Shop(orders_a_day=orders_a_day, days=days, seed=seed, weekdays=weekdays)
        found = alarms(shop.series(), since=FIRST_DAY + HISTORY_DAYS * DAY)
        assert len(found) <= 1, f"seed {seed}: {found}"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("orders_a_day", [2_000, 20_000])
def test_planted_anomalies_of_a_week_are_found(orders_a_day: int, seed: int) -> None:
    """The rules find Tuesday's surge, Thursday's silence, Saturday's wave of cancellations, and nothing else."""
    shop = Shop(orders_a_day=orders_a_day, days=HISTORY_DAYS + 7, seed=seed)
    week = FIRST_DAY + HISTORY_DAYS * DAY
    planted = {
        SURGE: (week + DAY + 14 * HOUR, HOUR),
        SILENCE: (week + 3 * DAY + 15 * HOUR, HOUR),
        CANCELLATIONS: (week + 5 * DAY + 11 * HOUR, HOUR),
    }
    shop.surge(planted[SURGE][0], planted[SURGE][0] + HOUR, factor=6)
    shop.fall_silent(planted[SILENCE][0], planted[SILENCE][0] + HOUR)
    shop.cancel(planted[CANCELLATIONS][0], planted[CANCELLATIONS][0] + HOUR, share=0.8)
    found = alarms(shop.series(), since=week)
    for rule, (start, length) in planted.items():
        during = [(one, end) for (name, one), end in found.items() if name == rule]
        assert during, f"{rule} was not found"
        for one, end in during:
            assert max(one, start) < min(end, start + length), f"{rule} was found at another time"
    assert {rule for rule, _ in found} == set(planted)


@pytest.mark.parametrize("seed", range(5))
def test_small_shop_falls_silent_for_days(seed: int) -> None:
    """A shop with ten orders a day is silent for five days: one alarm is raised, within four days."""
    shop = Shop(orders_a_day=10, days=HISTORY_DAYS + 10, seed=seed)
    start = FIRST_DAY + (HISTORY_DAYS + 2) * DAY
    shop.fall_silent(start, start + 5 * DAY)
    found = alarms(shop.series(), since=FIRST_DAY + HISTORY_DAYS * DAY)
    assert [rule for rule, _ in found] == [SILENCE]
    assert all(start < end <= start + 4 * DAY for end in found.values())


@pytest.mark.parametrize("seed", range(5))
def test_shop_younger_than_two_weeks_raises_nothing(seed: int) -> None:
    shop = Shop(orders_a_day=2_000, days=14, seed=seed)
    shop.surge(FIRST_DAY + 8 * DAY, FIRST_DAY + 9 * DAY, factor=10)
    series = shop.series()
    early = Series(
        first=FIRST_DAY - 5 * WEEK,
        end=series.end,
        sales={step: series.sum(step, step + 1) for step in range(series.first, series.end)},
    )
    assert alarms(early, since=FIRST_DAY) == {}
