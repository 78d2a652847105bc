from datetime import UTC, datetime

import pytest
import yaml
from django.core.management.color import color_style, no_style

from events.observing.lag_report import COLUMNS, LATE_S, Row, screen
from testkit.processes import CHECKOUT

AT = datetime(2025, 1, 30, 10, 15, 30, tzinfo=UTC)
STYLE = color_style(force_color=True)


def row(lag: int | None, seconds: float | None = 0.0, *, end: int = 10, group: str = "points") -> Row:
    current = None if lag is None else end - lag
    return {"group": group, **dict(zip(COLUMNS, ("orders", 0, current, end, lag, seconds), strict=True))}


def shown(*rows: Row) -> list[str]:
    return screen(rows, columns=COLUMNS, at=AT, style=no_style()).split("\n")


def test_the_screen_begins_with_the_time_and_the_table() -> None:
    clock, empty, header, first, *_ = shown(row(4, 1.5))
    assert clock.startswith("2025-01-30 10:15:30 UTC")
    assert empty == ""
    assert header.split() == list(COLUMNS)
    assert first.split() == ["orders", "0", "6", "10", "4", "1.5"]


@pytest.mark.parametrize(
    ("rows", "total"),
    [
        ([row(0)], "points: lag 0"),
        ([row(4, 1.56)], "points: lag 4, 1 of 1 partition behind, the oldest unread record is 1.6 s old"),
        (
            [row(4, 1.5), row(2, 61.0), row(0)],
            "points: lag 6, 2 of 3 partitions behind, the oldest unread record is 61.0 s old",
        ),
        ([row(4, None), row(0)], "points: lag 4, 1 of 2 partitions behind"),
        ([row(None, None)], "points: lag 0, 1 partition never read"),
        ([row(None, None), row(None, None), row(None, None, end=0)], "points: lag 0, 2 partitions never read"),
    ],
)
def test_the_totals_of_a_group_are_one_line(rows: list[Row], total: str) -> None:
    assert shown(*rows)[-1] == total


def test_every_group_has_totals_of_its_own() -> None:
    lines = shown(row(1, 1.0), row(2, 2.0), row(0, group="audit"))
    assert [line.split(",")[0] for line in lines[-2:]] == ["points: lag 3", "audit: lag 0"]


@pytest.mark.parametrize(
    ("rows", "style"),
    [
        ([row(0)], STYLE.SUCCESS),
        ([row(None, None, end=0)], STYLE.SUCCESS),
        ([row(None, None)], STYLE.WARNING),
        ([row(0), row(1, LATE_S)], STYLE.WARNING),
        ([row(0), row(1, LATE_S + 1)], STYLE.ERROR),
    ],
)
def test_the_colour_of_a_group_says_how_it_is(rows: list[Row], style: object) -> None:
    *_, total = screen(rows, columns=COLUMNS, at=AT, style=STYLE).split("\n")
    assert callable(style)
    assert total == style(shown(*rows)[-1])


def test_lag_is_red_when_the_alert_fires() -> None:
    (group,) = yaml.safe_load((CHECKOUT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    (alert,) = (rule for rule in group["rules"] if rule.get("alert") == "LagGrows")
    assert alert["expr"].endswith(f"kafka_consumergroup_lag_seconds) > {LATE_S}")
