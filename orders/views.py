from typing import Protocol, cast

from django.db import transaction
from django.db.models import QuerySet
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from events.publisher import publish
from orders.models import InvalidTransition, Order
from orders.serializers import NewOrderSerializer, OrderFilterSerializer, OrderSerializer
from orders.services import Change, cancel_order, pay_order, place_order


class ChangeOrder(Protocol):
    def __call__(self, *, order_id: int, user_id: int) -> Change: ...


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class OrderViewSet(mixins.RetrieveModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[Order]):
    """The caller's own orders."""

    serializer_class = OrderSerializer
    filter_serializer_class = OrderFilterSerializer

    @property
    def user_id(self) -> int:
        """The caller's; permissions let nobody in without one."""
        return cast(int, self.request.user.pk)

    def get_queryset(self) -> QuerySet[Order]:
        return Order.objects.filter(user=self.user_id).prefetch_related("items").order_by("-id")

    def create(self, request: Request) -> Response:
        new_order = NewOrderSerializer(data=request.data)
        new_order.is_valid(raise_exception=True)
        with transaction.atomic():
            change = place_order(user_id=self.user_id, lines=new_order.lines())
            _publish_on_commit(change)
        return Response(
            self.get_serializer(change.order).data,
            status=status.HTTP_201_CREATED,
            headers={"Location": f"/api/orders/{change.order.pk}"},
        )

    @action(detail=True, methods=["post"])
    def pay(self, request: Request, pk: int) -> Response:
        return self._change(pay_order, pk)

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: int) -> Response:
        return self._change(cancel_order, pk)

    def _change(self, change_order: ChangeOrder, pk: int) -> Response:
        try:
            with transaction.atomic():
                change = change_order(order_id=pk, user_id=self.user_id)
                _publish_on_commit(change)
        except Order.DoesNotExist as error:
            raise NotFound from error
        except InvalidTransition as error:
            raise Conflict(str(error)) from error
        return Response(self.get_serializer(change.order).data)


def _publish_on_commit(change: Change) -> None:
    """Hasten the event; that it is sent at all is the outbox's promise, so that a failure here must not surface."""
    # A lambda, because Django names what failed by its __qualname__, which a partial does not have.
    transaction.on_commit(lambda: publish([change.event]), robust=True)
