from decimal import Decimal
from typing import Any

from rest_framework import serializers

from events.wire.timestamps import TimestampField
from orders.models import Order, OrderItem
from orders.services import Line

MAX_ITEMS = 100
"""Largest number of items in one order."""


class JSONDecimalField(serializers.DecimalField):
    """A field for a decimal number, in any notation of JSON, such as 100, 100.00 or 1e2. The value is exact.

    A string or a boolean is invalid.
    """

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
    """A field for a whole number, in any notation of JSON, such as 2, 2.0 or 2e0. A string or a boolean is invalid."""

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


class NewItemSerializer(serializers.Serializer[Line]):
    productId = JSONIntegerField(source="product_id", min_value=1, max_value=2**63 - 1)
    quantity = JSONIntegerField(min_value=1, max_value=1_000_000)
    price = JSONDecimalField(min_value=0, max_digits=12, decimal_places=2)


class NewOrderSerializer(serializers.Serializer[Any]):
    """The body of `POST /api/orders`. Unknown fields are ignored."""

    items = NewItemSerializer(many=True, allow_empty=False, max_length=MAX_ITEMS)  # type: ignore[call-arg]

    def lines(self, data: Any) -> list[Line]:
        """Return the order lines in a request's body. Raise ValidationError if the body is invalid."""
        return [Line(**item) for item in self.run_validation(data)["items"]]


class OrderFilterSerializer(serializers.Serializer[Any]):
    """The query of `GET /api/orders`."""

    status = serializers.ChoiceField(Order.Status.choices, required=False, help_text="Orders in this status.")
    createdAfter = TimestampField(
        source="created_at__gte",
        required=False,
        help_text="Orders of this moment or later. RFC 3339 with an offset, whose `+` is `%2B` in a URL.",
    )
    createdBefore = TimestampField(
        source="created_at__lt",
        required=False,
        help_text="Orders before this moment, which itself is not included; spelled like `createdAfter`.",
    )


class AsOfSerializer(serializers.Serializer[Any]):
    """Describes the query of `GET /api/orders/{id}` in the OpenAPI document. The view reads `asOf` without it."""

    asOf = TimestampField(
        required=False,
        help_text="The order as it was at this moment. RFC 3339 with an offset, whose `+` is `%2B` in a URL.",
    )


class OrderItemSerializer(serializers.ModelSerializer[OrderItem]):
    productId = serializers.IntegerField(source="product_id")

    class Meta:
        model = OrderItem
        fields = ("id", "productId", "quantity", "price")
        read_only_fields = fields


class OrderSerializer(serializers.ModelSerializer[Order]):
    userId = serializers.IntegerField(source="user_id")
    totalAmount = serializers.DecimalField(source="total_amount", max_digits=20, decimal_places=2)
    createdAt = TimestampField(source="created_at")
    items = OrderItemSerializer(source="lines", many=True)

    class Meta:
        model = Order
        fields = ("id", "userId", "totalAmount", "status", "createdAt", "items")
        read_only_fields = fields
