"""Filters of the API's lists. A view names a serializer for the parameters in the URL's query string.

For each parameter, `source` of the serializer's field names the argument of `QuerySet.filter` that gets the value.
"""

from typing import Any

from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request
from rest_framework.views import APIView


class SerializerFilter(BaseFilterBackend):
    """A filter backend that applies the view's `filter_serializer_class`. A bad value raises ValidationError."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        filter_serializer_class = getattr(view, "filter_serializer_class", None)
        if filter_serializer_class is None or getattr(view, "action", None) != "list":
            return queryset
        # A plain dict, because DRF treats a QueryDict as a form, where a missing boolean is false.
        wanted = filter_serializer_class(data=request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        return queryset.filter(**wanted.validated_data)
