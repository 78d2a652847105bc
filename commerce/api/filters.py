"""Filters of lists: a view names a serializer of query parameters, whose sources are the lookups of its queryset."""

from typing import Any

from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request
from rest_framework.views import APIView


class SerializerFilter(BaseFilterBackend):
    """Narrows what a view lists by its `filter_serializer_class`, which refuses bad values with their places."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        filter_serializer_class = getattr(view, "filter_serializer_class", None)
        if filter_serializer_class is None or getattr(view, "action", None) != "list":
            return queryset
        # A plain dict, because in a QueryDict, taken for a form, a missing boolean would be false.
        wanted = filter_serializer_class(data=request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        return queryset.filter(**wanted.validated_data)
