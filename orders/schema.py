"""Descriptions of the order operations for the OpenAPI document. Serializers and filters describe the fields.

If an error status (400 or above) has no body in this module, the site's schema class adds a body with problem details
(RFC 9457).
"""

from functools import partial

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiRequest,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)

from orders.serializers import AsOfSerializer, NewOrderSerializer, OrderSerializer

EXAMPLE = {
    "id": 123,
    "userId": 45,
    "totalAmount": 200.00,
    "status": "PENDING",
    "createdAt": "2025-01-30T10:15:30.123Z",
    "items": [{"id": 1001, "productId": 1, "quantity": 2, "price": 100.00}],
}

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    # Either in double quotes, or bare without surrounding spaces and without a quote at both ends.
    {
        "type": "string",
        "pattern": '^("[ -~]{1,255}"|"|"[ -~]{0,253}[!#-~]|[!#-~]([ -~]{0,253}[!-~])?)$',
    },
    OpenApiParameter.HEADER,
    description="1 to 255 printable ASCII characters, bare or in double quotes. After a 201, the same key of the same "
    "user answers that 201 again for 24 hours, byte for byte. The same key with another body (compared as JSON) is "
    "422; while the first request is still being handled it is 409. An attempt that did not end in 201 leaves the key "
    "free.",
    examples=[OpenApiExample("A UUID", "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55")],
)
IDEMPOTENT_REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    {"type": "string", "enum": ["true"]},
    OpenApiParameter.HEADER,
    response=[201],
    description="This is the answer to an earlier request with this `Idempotency-Key`.",
)
LOCATION = OpenApiParameter(
    "Location",
    {"type": "string", "pattern": "^/api/orders/[0-9]+$"},
    OpenApiParameter.HEADER,
    response=[201],
    description="Path of the order.",
    required=True,
)

_operation = partial(extend_schema, tags=["Orders"])
_FORBIDDEN_BY_STATUS = OpenApiResponse(description="The status of the order, or its fulfilment, does not allow it.")


def _order(*, many: bool = False, **changes: str) -> OpenApiResponse:
    return OpenApiResponse(OrderSerializer(many=many), examples=[OpenApiExample("Example", EXAMPLE | changes)])


describe_orders = extend_schema_view(
    create=_operation(
        operation_id="placeOrder",
        summary="Place an order",
        description="The answer comes when the order and its event are committed, and never waits for Kafka.",
        parameters=[IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, LOCATION],
        request=OpenApiRequest(
            NewOrderSerializer,
            examples=[OpenApiExample("Example", {"items": [{"productId": 1, "quantity": 2, "price": 100.00}]})],
        ),
        responses={
            201: _order(),
            409: OpenApiResponse(description="A request with this `Idempotency-Key` is still being handled."),
            422: OpenApiResponse(description="This `Idempotency-Key` was used with another body."),
        },
        examples=[
            OpenApiExample(
                "Example",
                {"pointer": "/items/0/quantity", "detail": "Ensure this value is greater than or equal to 1."},
                response_only=True,
                status_codes=["400"],
            )
        ],
    ),
    list=_operation(
        operation_id="listOrders",
        summary="The caller's own orders, newest first",
        responses={200: _order(many=True)},
    ),
    retrieve=_operation(
        operation_id="getOrder",
        summary="One of the caller's orders, now or as it was",
        description="With `asOf` it is computed from the order's events. Before the first of them it is 404.",
        parameters=[AsOfSerializer],
        responses={
            200: _order(),
            400: OpenApiResponse(description="`asOf` is no moment."),
            410: OpenApiResponse(description="Events of the order that decide how it was then are no longer stored."),
        },
        examples=[
            OpenApiExample(
                "Example",
                {"pointer": "/asOf", "detail": "Must be RFC 3339 with an offset, such as 2025-01-30T10:15:30.123Z."},
                response_only=True,
                status_codes=["400"],
            )
        ],
    ),
    pay=_operation(
        operation_id="payOrder",
        summary="Pay an order",
        description="From PENDING only, and not after a checkout. Body and content type are ignored.",
        responses={200: _order(status="PAID"), 409: _FORBIDDEN_BY_STATUS},
    ),
    cancel=_operation(
        operation_id="cancelOrder",
        summary="Cancel an order",
        description="From PENDING or PAID. Body and content type are ignored. After a checkout the answer is 202: the "
        "fulfilment undoes what was done, and the order becomes CANCELLED after that.",
        responses={200: _order(status="CANCELLED"), 202: _order(status="PAID"), 409: _FORBIDDEN_BY_STATUS},
    ),
)
