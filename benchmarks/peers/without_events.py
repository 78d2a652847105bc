"""The product's endpoint without events: the cost of an order alone."""

from decimal import Decimal

from django.db import connection
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from orders import views
from orders.models import Order, OrderItem
from orders.serializers import NewOrderSerializer, OrderSerializer

_new_order = NewOrderSerializer()
_order = OrderSerializer()


class OrderViewSet(views.OrderViewSet):
    read_with_caller = None

    def create(self, request: Request) -> Response:
        lines = _new_order.lines(request.data)
        order = Order(
            user_id=self.user_id,
            total_amount=sum((line.price * line.quantity for line in lines), Decimal("0.00")),
        )
        order.lines = [OrderItem(**line._asdict()) for line in lines]
        _insert(order)
        return Response(
            _order.to_representation(order),
            status=status.HTTP_201_CREATED,
            headers={"Location": f"/api/orders/{order.pk}"},
        )


def _insert(order: Order) -> None:
    """Insert the order and its lines with one statement, and set their ids in the objects."""
    lines = [(line.product_id, line.quantity, line.price) for line in order.lines]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH placed AS (
                INSERT INTO orders_order (user_id, total_amount, status, created_at, last_sequence)
                VALUES (%s, %s, %s, %s, %s)
                RETURNING id
            )
            INSERT INTO orders_orderitem (order_id, product_id, quantity, price)
            SELECT placed.id, line.* FROM placed, (VALUES {", ".join(["%s"] * len(lines))}) AS line
            RETURNING order_id, id
            """,
            [order.user_id, order.total_amount, order.status, order.created_at, order.last_sequence, *lines],
        )
        for line, (order_id, line_id) in zip(order.lines, cursor.fetchall(), strict=True):
            order.pk = line.order_id = order_id
            line.pk = line_id
