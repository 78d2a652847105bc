"""The intervals of the charts and of the totals, in the reader's time zone."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from sales.intervals import Unit

LENGTHS: dict[Unit, int] = {"minute": 60, "hour": 48, "day": 30}
"""Number of intervals of each chart. The last one is in progress."""
STEPS: dict[Unit, timedelta] = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
SHIFT_DAYS: dict[Unit, int] = {"minute": 1, "hour": 1, "day": 7}
"""Number of days between the sales of a chart and the earlier sales that the chart shows beside them.

The chart of days compares each day with the same day of the week before.
"""


class Today(NamedTuple):
    """The boundaries of today's and yesterday's totals. All are in UTC."""

    yesterday: datetime
    yesterday_now: datetime
    """The beginning of the current minute, one day earlier by the clock of the reader's time zone."""
    today: datetime
    now: datetime
    """The end of the current minute. Today's totals include this minute."""


def boundaries(now: datetime, *, unit: Unit, zone: tzinfo, days_ago: int = 0) -> list[datetime]:
    """Return the beginnings of a chart's intervals, oldest first, and then the end of the last interval, in UTC.

    The last interval contains the moment `days_ago` days before `now`. Days and hours begin by the clock of `zone`.
    """
    local = now.astimezone(zone)
    if unit == "day":
        dates = [local.date() - timedelta(days=days_ago + ago) for ago in range(LENGTHS["day"] - 1, -2, -1)]
        return [datetime.combine(date, time.min, zone).astimezone(UTC) for date in dates]
    beginning = local.replace(second=0, microsecond=0)
    if unit == "hour":
        beginning = beginning.replace(minute=0)
    last = beginning.astimezone(UTC) - timedelta(days=days_ago)
    return [last - ago * STEPS[unit] for ago in range(LENGTHS[unit] - 1, -2, -1)]


def same_time_before(now: datetime, *, unit: Unit, zone: tzinfo) -> datetime:
    """Return the moment `SHIFT_DAYS[unit]` days before `now`, in UTC.

    If `unit` is "day", the moment and `now` have the same time of day by the clock of `zone`, even if a day between
    them has 23 or 25 hours because of summer time. Otherwise, the moment is exactly 24 hours before `now`.
    """
    return ((now.astimezone(zone) if unit == "day" else now) - timedelta(days=SHIFT_DAYS[unit])).astimezone(UTC)


def today(now: datetime, zone: tzinfo) -> Today:
    local = now.astimezone(zone)
    minute = local.replace(second=0, microsecond=0)
    yesterday = local.date() - timedelta(days=1)
    return Today(
        yesterday=datetime.combine(yesterday, time.min, zone).astimezone(UTC),
        yesterday_now=datetime.combine(yesterday, minute.time(), zone).astimezone(UTC),
        today=datetime.combine(local.date(), time.min, zone).astimezone(UTC),
        now=minute.astimezone(UTC) + timedelta(minutes=1),
    )


def labels(starts: Sequence[datetime], *, unit: Unit, zone: tzinfo) -> list[str]:
    """Return a short text for each interval: the date for days and for the hour of midnight, else the time of day."""
    local = [start.astimezone(zone) for start in starts]
    if unit == "day":
        return [f"{one:%m-%d}" for one in local]
    return [f"{one:%m-%d}" if unit == "hour" and one.hour == 0 else f"{one:%H:%M}" for one in local]
