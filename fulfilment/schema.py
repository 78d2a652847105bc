"""Descriptions of the fulfilment operations for the OpenAPI document. Serializers describe the fields."""

from functools import partial

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiRequest,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)

from fulfilment.serializers import CheckoutSerializer, FulfilmentSerializer

EXAMPLE = {
    "orderId": 123,
    "state": "PAYING",
    "reason": "",
    "deadlineAt": "2025-01-30T10:17:30.123Z",
    "steps": [{"step": "PAYMENT", "state": "WAITING", "at": "2025-01-30T10:15:30.123Z", "reason": ""}],
}
UNDONE = {
    "orderId": 123,
    "state": "CANCELLED",
    "reason": "SHIPMENT_REFUSED: product 9000000 cannot be shipped",
    "deadlineAt": None,
    "steps": [
        {"step": "PAYMENT", "state": "DONE", "at": "2025-01-30T10:15:30.223Z", "reason": ""},
        {
            "step": "SHIPMENT",
            "state": "REFUSED",
            "at": "2025-01-30T10:15:30.345Z",
            "reason": "product 9000000 cannot be shipped",
        },
        {"step": "REFUND", "state": "DONE", "at": "2025-01-30T10:15:30.456Z", "reason": ""},
    ],
}
LOCATION = OpenApiParameter(
    "Location",
    {"type": "string", "pattern": "^/api/orders/[0-9]+/fulfilment$"},
    OpenApiParameter.HEADER,
    response=[202],
    description="Path of the fulfilment.",
    required=True,
)

_operation = partial(extend_schema, tags=["Fulfilment"])

describe_checkout = extend_schema_view(
    post=_operation(
        operation_id="checkOut",
        summary="Pay and ship an order, or undo both",
        description="From PENDING only, and once. The answer comes when the fulfilment and its first command are "
        "committed, and never waits for Kafka or a provider.",
        parameters=[LOCATION],
        request=OpenApiRequest(
            CheckoutSerializer, examples=[OpenApiExample("Example", {"paymentToken": "tok_ok"}, request_only=True)]
        ),
        responses={
            202: OpenApiResponse(FulfilmentSerializer, examples=[OpenApiExample("Example", EXAMPLE)]),
            409: OpenApiResponse(description="The order is not PENDING, or was checked out before."),
        },
        examples=[
            OpenApiExample(
                "Example",
                {"pointer": "/paymentToken", "detail": "This field is required."},
                response_only=True,
                status_codes=["400"],
            )
        ],
    )
)
describe_fulfilment = extend_schema_view(
    get=_operation(
        operation_id="getFulfilment",
        summary="How far the fulfilment of an order is",
        description="While it is undone, its state is UNDOING. A fulfilment that is STUCK waits for an operator.",
        responses={
            200: OpenApiResponse(
                FulfilmentSerializer,
                examples=[OpenApiExample("Begun", EXAMPLE), OpenApiExample("Undone", UNDONE)],
            )
        },
    )
)
