"""The lag of consumer groups as text: a table for programs and people, and the screen of `consumer_lag --watch`."""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby

from django.core.management.color import Style
from django.template.defaultfilters import pluralize

from events.kafka.lag import is_never_read

COLUMNS = ("topic", "partition", "currentOffset", "endOffset", "lag", "secondsBehind")
LATE_S = 60
"""A partition is red if its first unread record is older than this, in seconds. The alert LagGrows has this limit."""

Row = dict[str, str | int | float | None]
"""The `group` and the values of `COLUMNS` for one partition. A value is None while it is not known."""


def table(rows: Sequence[Row], *, columns: Sequence[str]) -> str:
    return "\n".join(_aligned_lines(rows, columns))


def screen(rows: Sequence[Row], *, columns: Sequence[str], at: datetime, style: Style) -> str:
    """Return the table of `rows` in colour. The time `at` is above it, and the totals of each group are below it."""
    header, *lines = _aligned_lines(rows, columns)
    partitions = [_colour([row], style)(line) for row, line in zip(rows, lines, strict=True)]
    totals = [
        _colour(of_group, style)(f"{group}: {_total(of_group)}")
        for group, of_group in ((group, list(found)) for group, found in groupby(rows, key=lambda row: row["group"]))
    ]
    return "\n".join([clock(at), "", style.MIGRATE_HEADING(header), *partitions, "", *totals])


def clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, every two seconds until Ctrl-C"


def _aligned_lines(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    cells = [list(columns)] + [["-" if row[name] is None else str(row[name]) for name in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    return ["  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _total(rows: Sequence[Row]) -> str:
    parts = [f"lag {sum(_number(row['lag']) for row in rows):.0f}"]
    if behind := sum(_number(row["lag"]) > 0 for row in rows):
        parts.append(f"{behind} of {len(rows)} partition{pluralize(len(rows))} behind")
    if late := max(_number(row["secondsBehind"]) for row in rows):
        parts.append(f"the oldest unread record is {late:.1f} s old")
    if never_read := sum(map(_is_never_read, rows)):
        parts.append(f"{never_read} partition{pluralize(never_read)} never read")
    return ", ".join(parts)


def _colour(rows: Sequence[Row], style: Style) -> Callable[[str], str]:
    if any(_number(row["secondsBehind"]) > LATE_S for row in rows):
        return style.ERROR
    if any(row["lag"] or _is_never_read(row) for row in rows):
        return style.WARNING
    return style.SUCCESS


def _is_never_read(row: Row) -> bool:
    return is_never_read(current_offset=row["currentOffset"], end_offset=row["endOffset"])


def _number(value: str | float | None) -> float:
    return float(value or 0)
