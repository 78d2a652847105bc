"""One precision and one spelling for every time the outside world sees: UTC, milliseconds, `Z`."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from rest_framework import serializers

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""RFC 3339, the offset included, without which nobody knows which moment is meant."""


def now() -> datetime:
    """The current UTC time, cut to the milliseconds that are published, so that what is stored equals what is sent."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@lru_cache(maxsize=256)
def rfc3339(moment: datetime) -> str:
    """For example `2025-01-30T10:15:30.123Z` (RFC 3339).

    Kept for a while, because the moment of an order is written four times: in its event's id, value and headers, and in
    the answer.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TimestampField(serializers.DateTimeField):
    """A serializer field that takes RFC 3339 with any offset, and answers it in UTC with milliseconds."""

    default_error_messages = {"invalid": "Must be RFC 3339 with an offset, such as 2025-01-30T10:15:30.123Z."}

    def to_internal_value(self, value: Any) -> datetime:
        try:
            # In UTC, because PostgreSQL refuses offsets above 16 hours, which RFC 3339 has.
            return msgspec.convert(value, Moment).astimezone(UTC)
        except (msgspec.ValidationError, OverflowError):
            self.fail("invalid")

    def to_representation(self, value: Any) -> str:
        return rfc3339(value)
