"""The usual design: plain DRF, its serializers, simplejwt and the ORM; the request sends the event."""

from decimal import Decimal
from typing import Any

from django.db import transaction
from rest_framework import mixins, serializers, viewsets
from rest_framework.parsers import JSONParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework_simplejwt.authentication import JWTAuthentication

from benchmarks.peers.synchronous_kafka import send_and_wait
from orders.models import Order, OrderItem


class OrderItemSerializer(serializers.ModelSerializer[OrderItem]):
    productId = serializers.IntegerField(source="product_id", min_value=1)

    class Meta:
        model = OrderItem
        fields = ("id", "productId", "quantity", "price")


class OrderSerializer(serializers.ModelSerializer[Order]):
    userId = serializers.IntegerField(source="user_id", read_only=True)
    totalAmount = serializers.DecimalField(source="total_amount", max_digits=20, decimal_places=2, read_only=True)
    createdAt = serializers.DateTimeField(source="created_at", read_only=True)
    items = OrderItemSerializer(many=True)

    class Meta:
        model = Order
        fields = ("id", "userId", "totalAmount", "status", "createdAt", "items")
        read_only_fields = ("status",)

    @transaction.atomic
    def create(self, validated_data: dict[str, Any]) -> Order:
        items = validated_data.pop("items")
        total = sum((item["price"] * item["quantity"] for item in items), Decimal("0.00"))
        order = Order.objects.create(total_amount=total, **validated_data)
        OrderItem.objects.bulk_create(OrderItem(order=order, **item) for item in items)
        return order


class OrderViewSet(mixins.CreateModelMixin, viewsets.GenericViewSet[Order]):
    queryset = Order.objects.all()
    serializer_class = OrderSerializer
    authentication_classes = [JWTAuthentication]
    permission_classes = [IsAuthenticated]
    parser_classes = [JSONParser]
    renderer_classes = [JSONRenderer]

    def perform_create(self, serializer: serializers.BaseSerializer[Order]) -> None:
        send_and_wait(serializer.save(user=self.request.user).pk)
