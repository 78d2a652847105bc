from typing import cast

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from events.outbox.publisher import publish
from events.views import FreedAtOnce
from fulfilment.advancing import NotPossible, check_out
from fulfilment.models import Fulfilment
from fulfilment.schema import describe_checkout, describe_fulfilment
from fulfilment.serializers import CheckoutSerializer, FulfilmentSerializer

# All threads share these instances, because a new serializer copies every field.
_checkout = CheckoutSerializer()
_fulfilment = FulfilmentSerializer()


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


@describe_checkout
class CheckoutView(FreedAtOnce):
    """Endpoint that begins the fulfilment of one of the caller's orders."""

    def post(self, request: Request, pk: int) -> Response:
        body = _checkout.run_validation(request.data)
        try:
            begun = check_out(order_id=pk, user_id=cast(int, request.user.pk), **body)
        except ObjectDoesNotExist as error:
            raise NotFound from error
        except NotPossible as error:
            raise Conflict(str(error)) from error
        # A failure must not reach the client, because the relay sends the command later.
        transaction.on_commit(lambda: publish(begun.messages), robust=True)
        return Response(
            _fulfilment.to_representation(begun.fulfilment),
            status=status.HTTP_202_ACCEPTED,
            headers={"Location": f"/api/orders/{pk}/fulfilment"},
        )


@describe_fulfilment
class FulfilmentView(FreedAtOnce):
    """Endpoint for the fulfilment of one of the caller's orders."""

    def get(self, request: Request, pk: int) -> Response:
        rows = Fulfilment.objects.filter(pk=pk, order__user=request.user.pk).prefetch_related("step_rows")
        fulfilment = rows.first()
        if fulfilment is None:
            raise NotFound
        return Response(_fulfilment.to_representation(fulfilment))
