"""A table of examples for each rule: a window, the same window in earlier weeks, and what the rule says."""

from datetime import UTC, datetime, timedelta

import pytest

from sales.anomalies.rules import (
    CANCELLATIONS,
    SILENCE,
    SURGE,
    Finding,
    Thresholds,
    cancellations,
    judge,
    references,
    silence,
    surge,
)
from sales.anomalies.series import DAY, HOUR, STEP, WEEK, Sales, Series, start_of, step_of

THRESHOLDS = Thresholds(
    spreads=6, surge_factor=3, surge_orders=30, cancel_ratio=0.4, cancel_orders=10, silence_orders=20
)
QUARTER = HOUR // 4
NOON = step_of(datetime(2026, 3, 2, 12, tzinfo=UTC))
FIRST = NOON - 5 * WEEK


NOTHING = Sales()


def series(window: list[Sales], *, usual: Sales = NOTHING, weeks: int = 5) -> Series:
    """Return sales of `usual` in each step of the `weeks` weeks before `NOON`, and `window` from `NOON` on."""
    sales = dict.fromkeys(range(NOON - weeks * WEEK, NOON), usual)
    sales |= {NOON + number: one for number, one in enumerate(window)}
    return Series(first=FIRST, end=NOON + len(window), sales=sales)


def steps(created: int, *, at: int, cancelled: int = 0) -> list[Sales]:
    """Return the sales of the three steps of five minutes in a quarter of an hour. Each order costs `at` cents.

    `created` and `cancelled` are the numbers of orders in the whole quarter of an hour. All cancellations are
    in the first step.
    """
    shares = [created // QUARTER] * (QUARTER - 1) + [created - created // QUARTER * (QUARTER - 1)]
    return [Sales(one, one * at, cancelled if number == 0 else 0) for number, one in enumerate(shares)]


TEN_A_STEP = Sales(created=10, cents=10_000, cancelled=1)


@pytest.mark.parametrize(
    ("window", "usual", "is_surge"),
    [
        pytest.param(steps(30, at=1_000), TEN_A_STEP, False, id="as usual"),
        pytest.param(steps(60, at=1_000), TEN_A_STEP, False, id="twice the usual"),
        pytest.param(steps(6_000, at=1), Sales(1_000, 1_000), False, id="twice the usual of a large shop"),
        pytest.param(steps(150, at=1_000), TEN_A_STEP, True, id="five times the orders"),
        pytest.param(steps(30, at=10_000), TEN_A_STEP, True, id="ten times the price"),
        pytest.param([*steps(30, at=1_000)[:2], Sales(10, 10**12)], TEN_A_STEP, False, id="one huge order"),
        pytest.param([Sales(), Sales(), Sales(500, 500_000)], TEN_A_STEP, True, id="many orders in one step"),
        pytest.param(steps(29, at=10**9), Sales(), False, id="too few orders to tell"),
        pytest.param(steps(30, at=1_000), Sales(), False, id="a shop without history"),
        pytest.param(steps(150, at=-1_000), TEN_A_STEP, False, id="negative amounts"),
        pytest.param(steps(150, at=10**26), Sales(10, 10**28), False, id="one order of 26 digits a step is usual here"),
    ],
)
def test_surge(window: list[Sales], usual: Sales, is_surge: bool) -> None:
    found = surge(series(window, usual=usual), NOON, NOON + QUARTER, THRESHOLDS)
    assert (found is not None) == is_surge
    if found:
        cents = sum(one.cents for one in window)
        assert found == Finding(SURGE, NOON, NOON + QUARTER, cents, QUARTER * usual.cents)


@pytest.mark.parametrize(
    ("window", "usual", "is_wave"),
    [
        pytest.param(steps(30, at=1, cancelled=3), TEN_A_STEP, False, id="as usual"),
        pytest.param(steps(30, at=1, cancelled=11), TEN_A_STEP, False, id="below the ratio of a wave"),
        pytest.param(steps(30, at=1, cancelled=25), TEN_A_STEP, True, id="most orders of the window"),
        pytest.param(steps(3, at=1, cancelled=40), TEN_A_STEP, True, id="orders of earlier windows"),
        pytest.param(steps(0, at=1, cancelled=40), TEN_A_STEP, True, id="no new order at all"),
        pytest.param(steps(9, at=1, cancelled=9), TEN_A_STEP, False, id="too few to tell"),
        pytest.param(steps(200, at=1, cancelled=30), TEN_A_STEP, False, id="many orders bring many cancellations"),
        pytest.param(steps(1, at=1, cancelled=11), Sales(1, 1, 2), False, id="cancelled at night as every night"),
        pytest.param(steps(30, at=1, cancelled=20), Sales(10, 1, 6), False, id="a shop where most is cancelled"),
        pytest.param(steps(30, at=1, cancelled=25), Sales(10, 1, 0), True, id="a shop where nothing is cancelled"),
        pytest.param(steps(30, at=1, cancelled=25), Sales(), False, id="a shop without history"),
    ],
)
def test_cancellations(window: list[Sales], usual: Sales, is_wave: bool) -> None:
    found = cancellations(series(window, usual=usual), NOON, NOON + QUARTER, THRESHOLDS)
    assert (found is not None) == is_wave
    if found:
        assert found.rule == CANCELLATIONS
        created, cancelled = (sum(one[field] for one in window) for field in (0, 2))
        assert found.observed == cancelled / max(created, 1)


@pytest.mark.parametrize(
    ("minutes", "usual", "is_silence"),
    [
        pytest.param(5, Sales(100), False, id="five minutes are too short for any shop"),
        pytest.param(10, Sales(10), True, id="ten minutes with twenty usual orders"),
        pytest.param(10, Sales(9), False, id="ten minutes with eighteen usual orders"),
        pytest.param(100, Sales(1), True, id="a hundred minutes of a smaller shop"),
        pytest.param(7 * 24 * 60, Sales(1), True, id="a week"),
        pytest.param(7 * 24 * 60 + 5, Sales(1), False, id="more than a week is compared with itself"),
        pytest.param(24 * 60, Sales(), False, id="a shop that never sold"),
    ],
)
def test_silence(minutes: int, usual: Sales, is_silence: bool) -> None:
    length = minutes // 5
    found = silence(series([Sales()] * length, usual=usual), NOON, NOON + length, THRESHOLDS)
    assert (found is not None) == is_silence
    if found:
        assert found == Finding(SILENCE, NOON, NOON + length, 0, length * usual.created)


def test_silence_ignores_times_that_vary_as_much_as_they_sell() -> None:
    sales = {FIRST: Sales(1)} | {
        NOON - (week + 1) * WEEK + shift: Sales(created)
        for week, created in enumerate((2, 300, 25, 500))
        for shift in (-HOUR, 0, HOUR)
    }
    one = Series(first=FIRST, end=NOON + HOUR, sales=sales)
    assert silence(one, NOON, NOON + HOUR, THRESHOLDS) is None


@pytest.mark.parametrize(("weeks", "windows"), [(1, 0), (2, 0), (3, 8), (4, 11), (5, 12)])
def test_references_come_from_at_least_two_whole_weeks(weeks: int, windows: int) -> None:
    """Each earlier week has three windows: at the same time, an hour earlier, and an hour later.

    The earliest of them begins before the shop's first order and does not count. Only four weeks are read.
    """
    one = series([Sales()] * QUARTER, usual=TEN_A_STEP, weeks=weeks)
    assert len(references(one, NOON, NOON + QUARTER)) == windows


def test_one_strange_week_does_not_change_the_usual() -> None:
    strange = series(steps(150, at=1_000), usual=TEN_A_STEP)
    week_ago = {step: Sales(1_000, 10**7) for step in range(NOON - WEEK - HOUR, NOON - WEEK + 2 * HOUR)}
    usual = dict.fromkeys(range(FIRST, NOON), TEN_A_STEP)
    now = {NOON + number: one for number, one in enumerate(steps(150, at=1_000))}
    strange = Series(first=FIRST, end=NOON + QUARTER, sales=usual | week_ago | now)
    assert surge(strange, NOON, NOON + QUARTER, THRESHOLDS) is not None


def test_longer_window_leaves_a_surge_to_the_shorter_one() -> None:
    hour = [one for part in (30, 400, 30, 30) for one in steps(part, at=1_000)]
    one = series(hour, usual=TEN_A_STEP)
    found = [finding for end in range(NOON + 1, one.end + 1) for finding in judge(one, end, THRESHOLDS)]
    assert [(finding.rule, finding.start, finding.end) for finding in found] == [
        (SURGE, NOON + QUARTER, NOON + 2 * QUARTER)
    ]


def test_surge_of_a_small_shop_is_found_in_the_longer_window() -> None:
    """Eight orders an hour, and then an hour with 36. No quarter of an hour has enough orders to tell."""
    hour = [Sales(3, 3_000)] * HOUR
    usual = {step: Sales(1, 1_000) for step in range(FIRST, NOON) if step % 3 != 1}
    one = Series(first=FIRST, end=NOON + HOUR, sales=usual | {NOON + at: sale for at, sale in enumerate(hour)})
    lower = Thresholds(
        spreads=4, surge_factor=3, surge_orders=30, cancel_ratio=0.4, cancel_orders=10, silence_orders=20
    )
    found = [finding for end in range(NOON + 1, one.end + 1) for finding in judge(one, end, lower)]
    assert [(finding.rule, finding.start, finding.end) for finding in found] == [(SURGE, NOON, NOON + HOUR)]


def test_silence_that_lasts_keeps_its_beginning() -> None:
    one = series([Sales()] * DAY, usual=TEN_A_STEP)
    starts = {finding.start for end in range(NOON, one.end + 1) for finding in judge(one, end, THRESHOLDS)}
    assert starts == {NOON}


def test_sums_stay_exact_beside_an_amount_of_26_digits() -> None:
    one = Series(first=0, end=4, sales={0: Sales(1, 10**28), 2: Sales(1, 7)})
    assert one.sum(1, 4) == Sales(1, 7, 0)


@pytest.mark.parametrize("year", [1, 1969, 1970, 9998])
def test_steps_of_any_year(year: int) -> None:
    moment = datetime(year, 6, 1, 12, 7, tzinfo=UTC)
    assert start_of(step_of(moment)) == moment - timedelta(minutes=2)
    assert start_of(step_of(moment) + 1) - start_of(step_of(moment)) == STEP
