"""Intervals of time: minutes, hours and days in UTC, over all years that a datetime has."""

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, get_args

Unit = Literal["minute", "hour", "day"]
UNITS: tuple[Unit, ...] = get_args(Unit)
LENGTHS: dict[Unit, timedelta] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
MINUTE = LENGTHS["minute"]
BEGINNING = datetime.min.replace(tzinfo=UTC)


class Intervals(NamedTuple):
    """One or more consecutive intervals of the same length."""

    unit: Unit
    first: int
    """Number of the first interval. Number 0 begins with the year 1."""
    last: int

    @classmethod
    def touching(cls, start: datetime, end: datetime, *, unit: Unit) -> "Intervals":
        """Return the intervals that overlap the time from `start` up to but excluding `end`.

        `start` is before `end`, and both are aware datetimes.
        """
        length = LENGTHS[unit]
        return cls(unit, (start - BEGINNING) // length, -((BEGINNING - end) // length) - 1)

    def __len__(self) -> int:
        return self.last - self.first + 1

    def starts(self) -> list[datetime]:
        """Return the beginnings of the intervals, oldest first."""
        length = LENGTHS[self.unit]
        return [BEGINNING + number * length for number in range(self.first, self.last + 1)]

    @property
    def first_minute(self) -> datetime:
        return BEGINNING + self.first * LENGTHS[self.unit]

    @property
    def last_minute(self) -> datetime:
        # The end of the last interval of the year 9999 would be no datetime.
        return BEGINNING + self.last * LENGTHS[self.unit] + (LENGTHS[self.unit] - MINUTE)
