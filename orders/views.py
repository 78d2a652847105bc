from datetime import datetime
from typing import Protocol, cast

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, NotFound, ParseError, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from events.outbox.publisher import publish
from events.views import FreedAtOnce
from events.wire.timestamps import TimestampField, rfc3339
from orders.history import BrokenHistory, order_as_of
from orders.idempotency import Answer, InvalidKey, KeyInUse, KeyOfAnotherBody, answer_once, parse_key
from orders.models import LINES, NEXT_ID, InvalidTransition, Order
from orders.schema import describe_orders
from orders.serializers import NewOrderSerializer, OrderFilterSerializer, OrderSerializer
from orders.services import Change, HandedOver, UnderControl, pay_order, place_order, request_cancellation

# All threads share these instances, because a new serializer copies every field.
_new_order = NewOrderSerializer()
_order = OrderSerializer()
_moment = TimestampField()


class ChangeOrder(Protocol):
    def __call__(self, *, order_id: int, user_id: int) -> Change | HandedOver: ...


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class Gone(APIException):
    status_code = status.HTTP_410_GONE
    default_code = "gone"


class Unprocessable(APIException):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "unprocessable"


@describe_orders
class OrderViewSet(FreedAtOnce, mixins.ListModelMixin, viewsets.GenericViewSet[Order]):
    """Endpoints for the caller's own orders."""

    serializer_class = OrderSerializer
    filter_serializer_class = OrderFilterSerializer

    @property
    def user_id(self) -> int:
        """Return the caller's id. Permissions reject anonymous requests."""
        return cast(int, self.request.user.pk)

    @property
    def read_with_caller(self) -> str | None:
        """Return the SQL expression that draws a new order's id; None unless the request places an order.

        Authentication evaluates the expression in its query for the user, to save a round trip.
        """
        return NEXT_ID if self.action == "create" else None

    def get_queryset(self) -> QuerySet[Order]:
        rows = Order.objects.filter(user=self.user_id).defer("event_ids").order_by("-id")
        # A single order reads its lines itself. Prefetched lines refer to their order, which is a reference cycle.
        return rows.prefetch_related(LINES) if self.action == "list" else rows

    def retrieve(self, request: Request, pk: int) -> Response:
        moment = _moment_asked_for(request)
        order = self.get_object()
        return Response(_order.to_representation(self._as_of(order, moment) if moment else order))

    def _as_of(self, order: Order, moment: datetime) -> Order:
        try:
            then = order_as_of(order, moment)
        except BrokenHistory as error:
            raise Gone(f"{order} as of {rfc3339(moment)} is not known: {error}.") from error
        if then is None:
            raise NotFound(f"{order} had no event yet.")
        return then

    def create(self, request: Request) -> HttpResponse:
        header = request.META.get("HTTP_IDEMPOTENCY_KEY")
        answer = self._place(request) if header is None else self._place_once(request, header)
        headers = {"Location": answer.location} | ({"Idempotent-Replayed": "true"} if answer.replayed else {})
        return HttpResponse(
            answer.body,
            status=status.HTTP_201_CREATED,
            content_type=request.accepted_renderer.media_type,
            headers=headers,
        )

    def _place_once(self, request: Request, header: str) -> Answer:
        try:
            key = parse_key(header)
            return answer_once(user_id=self.user_id, key=key, body=request.data, create=lambda: self._place(request))
        except InvalidKey as error:
            raise ParseError(f"Idempotency-Key: {error}") from error
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error
        except KeyInUse as error:
            raise Conflict(str(error)) from error
        except KeyOfAnotherBody as error:
            raise Unprocessable(str(error)) from error

    def _place(self, request: Request) -> Answer:
        change = place_order(
            user_id=self.user_id,
            lines=_new_order.lines(request.data),
            order_id=getattr(request, "read_with_caller", None),
        )
        _publish_on_commit(change)
        body = cast(bytes, request.accepted_renderer.render(_order.to_representation(change.order)))
        return Answer(body, f"/api/orders/{change.order.pk}")

    @action(detail=True, methods=["post"])
    def pay(self, request: Request, pk: int) -> Response:
        return self._change(pay_order, pk)

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: int) -> Response:
        return self._change(request_cancellation, pk)

    def _change(self, change_order: ChangeOrder, pk: int) -> Response:
        try:
            change = change_order(order_id=pk, user_id=self.user_id)
        except Order.DoesNotExist as error:
            raise NotFound from error
        except (InvalidTransition, UnderControl) as error:
            raise Conflict(str(error)) from error
        _publish_on_commit(change)
        is_handed_over = isinstance(change, HandedOver)
        return Response(
            _order.to_representation(change.order),
            status=status.HTTP_202_ACCEPTED if is_handed_over else status.HTTP_200_OK,
        )


def _moment_asked_for(request: Request) -> datetime | None:
    """Return the time in the query parameter `asOf`; None without one. Raise ValidationError if it is malformed."""
    if (text := request.query_params.get("asOf")) is None:
        return None
    try:
        return _moment.run_validation(text)
    except ValidationError as error:
        raise ValidationError({"asOf": error.detail}) from error


def _publish_on_commit(change: Change | HandedOver) -> None:
    """Publish the messages on commit. A failure must not reach the client, because the relay sends them later."""
    messages = change.messages if isinstance(change, HandedOver) else [change.event]
    # Django's log message needs a __qualname__, which a lambda has and a partial does not.
    transaction.on_commit(lambda: publish(messages), robust=True)
