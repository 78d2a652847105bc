"""docs/scaling.md shows what `python -m benchmarks.scaling` prints, and its simulation agrees with the formulas."""

import pytest

from benchmarks.scaling import sizes
from benchmarks.scaling.measured import measured
from benchmarks.scaling.queues import simulate
from benchmarks.scaling.tables import tables
from testkit.processes import CHECKOUT

OUTAGE = range(60, 360)
"""The simulated seconds of trouble: Kafka or the group is away, or more events come."""


@pytest.mark.parametrize("title", tables())
def test_page_shows_each_table_as_printed(title: str) -> None:
    page = (CHECKOUT / "docs/scaling.md").read_text()
    assert tables()[title] in page, f"copy the table {title} of `python -m benchmarks.scaling` to docs/scaling.md"


def test_every_constant_is_positive() -> None:
    constants = {**vars(measured()), **vars(sizes.saved())}
    assert {name: value for name, value in constants.items() if value <= 0} == {}


@pytest.mark.parametrize(("rate", "capacity"), [(100.0, 400.0), (10.0, 1_000.0), (999.0, 2_000.0)])
def test_lag_drains_as_the_formula_says(rate: float, capacity: float) -> None:
    """If events come at rate a, a group of capacity c drains the lag of an outage of T seconds in T * a / (c - a) s."""
    outcome = simulate(
        arrivals=lambda _: rate,
        seconds=2_000,
        trouble=OUTAGE,
        relay_per_s=1e6,
        group_per_s=capacity,
        group_away=True,
    )
    assert outcome.lag == pytest.approx(rate * len(OUTAGE))
    assert outcome.delay_s == len(OUTAGE)
    assert outcome.drained_after_s == pytest.approx(len(OUTAGE) * rate / (capacity - rate), abs=1)
    assert outcome.outbox == 0


def test_outbox_drains_at_the_relay_rate() -> None:
    outcome = simulate(
        arrivals=lambda _: 100.0,
        seconds=2_000,
        trouble=OUTAGE,
        relay_per_s=400.0,
        group_per_s=1e6,
        kafka_away=True,
    )
    assert outcome.outbox == pytest.approx(100 * len(OUTAGE))
    assert outcome.drained_after_s == pytest.approx(100, abs=1)
    assert outcome.lag == 0


def test_backlog_of_a_full_group_never_drains() -> None:
    outcome = simulate(
        arrivals=lambda second: 400.0 if second in OUTAGE else 100.0,
        seconds=2_000,
        trouble=OUTAGE,
        relay_per_s=1e6,
        group_per_s=100.0,
    )
    assert outcome.drained_after_s == float("inf")
    assert outcome.lag == pytest.approx(300 * len(OUTAGE))
