from typing import Any

from rest_framework import serializers

from events.wire.timestamps import TimestampField
from orders.fields import JSONDecimalField, JSONIntegerField
from orders.models import Order, OrderItem
from orders.services import Line

MAX_ITEMS = 100
"""Largest number of items in one order."""


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
    """The query of `GET /api/orders/{id}`."""

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
