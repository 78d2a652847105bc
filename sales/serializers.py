from datetime import datetime, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from events.wire.timestamps import TimestampField, now, rfc3339
from sales.intervals import BEGINNING, LENGTHS, UNITS, Intervals, Unit
from sales.models import AMOUNT_DIGITS
from sales.series import Interval, Summary

MAX_INTERVALS = 1_500
"""Largest number of intervals in one answer. It allows more than a day of minutes, and four years of days."""
DEFAULT_INTERVALS: dict[Unit, int] = {"minute": 60, "hour": 24, "day": 30}
"""Number of intervals in the answer to a request without `from`."""


class SalesQuerySerializer(serializers.Serializer[Any]):
    """The query of `GET /api/sales`."""

    to = TimestampField(
        required=False,
        help_text="Up to this moment, which itself is not included; by default the current one. The last interval is "
        "the one that has a part of the time before `to`.",
    )
    interval = serializers.ChoiceField(UNITS, required=False, default="hour", help_text="The length of an interval.")

    def get_fields(self) -> dict[str, Any]:
        since = TimestampField(
            required=False,
            help_text="From the interval with this moment on. RFC 3339 with an offset, whose `+` is `%2B` in a URL. "
            "By default the answer has "
            + ", ".join(f"{count} {unit}s" for unit, count in DEFAULT_INTERVALS.items())
            + " up to `to`.",
        )
        # `from` is a keyword of Python, so it cannot be the name of an attribute.
        return {"from": since, **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        unit: Unit = attrs["interval"]
        end: datetime = attrs.get("to") or now()
        start: datetime = attrs.get("from") or _default_start(end, unit)
        if start >= end:
            name = "to" if "to" in attrs else "from"
            raise serializers.ValidationError(
                {name: f"Nothing lies from {rfc3339(start)} to {rfc3339(end)}: `from` must be before `to`."}
            )
        intervals = Intervals.touching(start, end, unit=unit)
        if len(intervals) > MAX_INTERVALS:
            raise serializers.ValidationError(
                {
                    "interval": f"From {rfc3339(start)} to {rfc3339(end)} there are {len(intervals)} {unit}s, and an "
                    f"answer has at most {MAX_INTERVALS}: take a longer interval, or a shorter time."
                }
            )
        return {"intervals": intervals}


def _default_start(end: datetime, unit: Unit) -> datetime:
    """Return the beginning of the first interval in the answer to a request without `from`."""
    # One microsecond less, so that the interval that ends with `end` is the last one.
    before_last = LENGTHS[unit] * (DEFAULT_INTERVALS[unit] - 1)
    if end - BEGINNING <= before_last:
        return BEGINNING
    last = Intervals.touching(max(BEGINNING, end - timedelta(microseconds=1)), end, unit=unit)
    return last.first_minute - before_last


@extend_schema_field({"type": "number"})
class SumField(serializers.DecimalField):
    """An exact sum. It may be negative, because another program may send a negative amount."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=AMOUNT_DIGITS, decimal_places=2, **kwargs)


class IntervalSerializer(serializers.Serializer[Interval]):
    created = serializers.IntegerField(min_value=0, help_text="Number of orders created in the interval.")
    createdAmount = SumField(help_text="Their total.")
    paid = serializers.IntegerField(min_value=0, help_text="Number of orders paid in the interval.")
    paidAmount = SumField(help_text="Their total.")
    cancelled = serializers.IntegerField(min_value=0, help_text="Number of orders cancelled in the interval.")
    cancelledAmount = SumField(help_text="Their total, whether they had been paid or not.")

    def get_fields(self) -> dict[str, Any]:
        return {"from": TimestampField(help_text="Beginning of the interval, in UTC."), **super().get_fields()}

    def to_representation(self, instance: Interval) -> dict[str, Any]:
        """Return the interval as JSON.

        This method does not use the serializer's fields, because an answer may have 1,500 intervals.
        """
        start, created, paid, cancelled = instance
        return {
            "from": rfc3339(start),
            "created": created.number,
            "createdAmount": created.amount,
            "paid": paid.number,
            "paidAmount": paid.amount,
            "cancelled": cancelled.number,
            "cancelledAmount": cancelled.amount,
        }


class SummarySerializer(serializers.Serializer[Summary]):
    orders = serializers.IntegerField(min_value=0, help_text="Number of orders created.")
    paid = serializers.IntegerField(min_value=0, help_text="Number of orders paid, also of those cancelled since.")
    cancelled = serializers.IntegerField(min_value=0, help_text="Number of orders cancelled.")
    amountPaid = SumField(source="amount_paid", help_text="Total of the orders paid, also of those cancelled since.")
    lastOrderAt = TimestampField(source="last_order_at", allow_null=True, help_text="null without orders.")
