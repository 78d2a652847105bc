"""Exact number fields for JSON requests. They accept any spelling of a number, and reject strings and booleans."""

from decimal import Decimal
from typing import Any

from rest_framework import serializers


class JSONDecimalField(serializers.DecimalField):
    def to_internal_value(self, data: Any) -> Decimal:
        return super().to_internal_value(_number(data, self))

    def validate_precision(self, value: Decimal) -> Decimal:
        """Validate the value, not its spelling: `1e2` is valid where `100.00` is, and `1.000` where `1.00` is."""
        smallest = Decimal(1).scaleb(-(self.decimal_places or 0))
        # quantize() raises for more digits than the precision of decimal. Such numbers are rejected below.
        if value.adjusted() < (self.max_digits or 0) and value == (exact := value.quantize(smallest)):
            value = exact
        return super().validate_precision(value)


class JSONIntegerField(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        number = _number(data, self)
        # The size is checked before int(): 1e999999999 would not fit into memory.
        if number.adjusted() > 20 or number != number.to_integral_value():
            self.fail("invalid")
        return int(number)


def _number(data: Any, field: serializers.Field[Any, Any, Any, Any]) -> Decimal:
    if isinstance(data, bool) or not isinstance(data, int | Decimal):
        field.fail("invalid")
    # Zero has many spellings, such as -0.0 and 0e99.
    return Decimal(data) or Decimal(0)
