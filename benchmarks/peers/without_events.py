"""The product's endpoint without any event machinery: what an order costs that nobody is told of."""

from decimal import Decimal

from django.db import transaction
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from orders import views
from orders.models import Order, OrderItem
from orders.serializers import NewOrderSerializer, OrderSerializer

_new_order = NewOrderSerializer()
_order = OrderSerializer()


class OrderViewSet(views.OrderViewSet):
    def create(self, request: Request) -> Response:
        lines = _new_order.lines(request.data)
        with transaction.atomic():
            order = Order(
                user_id=self.user_id,
                total_amount=sum((line.price * line.quantity for line in lines), Decimal("0.00")),
            )
            order.lines = [OrderItem(order=order, **line._asdict()) for line in lines]
            Order.objects.insert(order)
        return Response(
            _order.to_representation(order),
            status=status.HTTP_201_CREATED,
            headers={"Location": f"/api/orders/{order.pk}"},
        )
