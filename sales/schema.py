"""Descriptions of the operations of sales for the OpenAPI document. Serializers describe the fields."""

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view

from sales.serializers import MAX_INTERVALS, IntervalSerializer, SalesQuerySerializer, SummarySerializer

INTERVAL = {
    "from": "2025-01-30T10:00:00.000Z",
    "created": 3,
    "createdAmount": 700.00,
    "paid": 2,
    "paidAmount": 500.00,
    "cancelled": 1,
    "cancelledAmount": 200.00,
}
SUMMARY = {"orders": 3, "paid": 2, "cancelled": 1, "amountPaid": 500.00, "lastOrderAt": "2025-01-30T10:15:30.123Z"}

describe_sales = extend_schema_view(
    get=extend_schema(
        operation_id="getSales",
        tags=["Sales"],
        summary="Orders created, paid and cancelled in each interval, oldest first",
        description="For staff with the permission `sales.view_salesbucket`. An event belongs to the interval of its "
        "own time, however late it arrives. Intervals begin at full minutes, hours and days in UTC. Each one is "
        "complete: the answer begins with the interval that has `from`, and ends with the one before `to`. Intervals "
        f"without events are included. An answer has at most {MAX_INTERVALS:,} of them.",
        parameters=[SalesQuerySerializer],
        responses={
            200: OpenApiResponse(IntervalSerializer(many=True), examples=[OpenApiExample("Example", INTERVAL)]),
            400: OpenApiResponse(description="A value is not valid, or the answer would have too many intervals."),
            403: OpenApiResponse(description="The caller may not see the sales."),
        },
        examples=[
            OpenApiExample(
                "Example",
                {
                    "pointer": "/interval",
                    "detail": "From 2025-01-01T00:00:00.000Z to 2025-02-01T00:00:00.000Z there are 44640 minutes, and "
                    f"an answer has at most {MAX_INTERVALS}: take a longer interval, or a shorter time.",
                },
                response_only=True,
                status_codes=["400"],
            )
        ],
    )
)
describe_summary = extend_schema_view(
    get=extend_schema(
        operation_id="getMySummary",
        tags=["Sales"],
        summary="The numbers of the caller's orders, and the amount paid",
        description="It follows the orders by a moment, because it is made from their events.",
        responses={200: OpenApiResponse(SummarySerializer, examples=[OpenApiExample("Example", SUMMARY)])},
    )
)
