"""The one format of every published time: RFC 3339 in UTC with milliseconds and `Z`."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from rest_framework import serializers

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""An RFC 3339 time with a UTC offset, which is required."""

LEAP_SECOND = re.compile(r"\d[Tt ]\d\d:\d\d:60")


def has_leap_second(text: str) -> bool:
    """Return whether RFC 3339 `text` contains the second 60, which neither Python nor PostgreSQL can represent."""
    return LEAP_SECOND.search(text) is not None


def now() -> datetime:
    """Return the current UTC time, truncated to milliseconds, so that the stored time equals the published time."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def rfc3339(moment: datetime) -> str:
    """Return `moment` in UTC with milliseconds, for example `2025-01-30T10:15:30.123Z` (RFC 3339)."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TimestampField(serializers.DateTimeField):
    """A serializer field that accepts RFC 3339 with any UTC offset, and returns UTC with milliseconds."""

    default_error_messages = {
        "invalid": "Must be RFC 3339 with an offset, such as 2025-01-30T10:15:30.123Z.",
        "leap_second": "The second 60 is not taken: write 59.",
    }

    def to_internal_value(self, value: Any) -> datetime:
        try:
            # Convert to UTC, because PostgreSQL refuses UTC offsets above 16 hours, which RFC 3339 allows.
            return msgspec.convert(value, Moment).astimezone(UTC)
        except (msgspec.ValidationError, OverflowError):
            self.fail("leap_second" if has_leap_second(str(value)) else "invalid")

    def to_representation(self, value: Any) -> str:
        return rfc3339(value)
