"""Numbers of a JSON request, taken exactly: a number in any spelling of its value, never a string, never a boolean."""

from decimal import Decimal
from typing import Any

from rest_framework import serializers


class JSONDecimalField(serializers.DecimalField):
    def to_internal_value(self, data: Any) -> Decimal:
        return super().to_internal_value(_number(data, self))

    def validate_precision(self, value: Decimal) -> Decimal:
        """Judge the value and not its spelling: `1e2` and `1.000` are fine where `100.00` and `1.00` are."""
        smallest = Decimal(1).scaleb(-(self.decimal_places or 0))
        # A longer number is refused anyway, and quantize() raises for one of more digits than decimal's precision.
        if value.adjusted() < (self.max_digits or 0) and value == (exact := value.quantize(smallest)):
            value = exact
        return super().validate_precision(value)


class JSONIntegerField(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        number = _number(data, self)
        # Compared before it becomes an int: 1e999999999 would not fit into memory.
        if number.adjusted() > 20 or number != number.to_integral_value():
            self.fail("invalid")
        return int(number)


def _number(data: Any, field: serializers.Field[Any, Any, Any, Any]) -> Decimal:
    if isinstance(data, bool) or not isinstance(data, int | Decimal):
        field.fail("invalid")
    # Zero has many spellings, -0.0 and 0e99 among them, and one value.
    return Decimal(data) or Decimal(0)
