from typing import Any, cast

from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from events.views import FreedAtOnce
from sales.schema import describe_sales, describe_summary
from sales.serializers import IntervalSerializer, SalesQuerySerializer, SummarySerializer
from sales.series import read_series, read_summary

_interval = IntervalSerializer()


class MaySeeSales(BasePermission):
    """Allows staff with the permission to view the sums."""

    message = "Only staff with the permission sales.view_salesbucket may see the sales."

    def has_permission(self, request: Request, view: Any) -> bool:
        user = cast(Any, request.user)
        return bool(user.is_staff and user.has_perm("sales.view_salesbucket"))


@describe_sales
class SalesView(FreedAtOnce):
    """Endpoint for the sales of all customers, by interval."""

    # `IsAuthenticated` comes first: it answers 401 to a request without a token.
    permission_classes = (IsAuthenticated, MaySeeSales)

    def get(self, request: Request) -> Response:
        # A plain dict, because the REST framework treats a QueryDict as a form.
        query = SalesQuerySerializer(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        found = read_series(query.validated_data["intervals"])
        return Response([_interval.to_representation(one) for one in found])


@describe_summary
class SummaryView(FreedAtOnce):
    """Endpoint for the summary of the caller's own orders."""

    def get(self, request: Request) -> Response:
        return Response(SummarySerializer(read_summary(cast(int, request.user.pk))).data)
