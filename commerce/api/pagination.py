"""Cursor pagination. The body stays a plain array; the `Link` header (RFC 8288) has the next page."""

from typing import Any

from django.core import signing
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView


class LinkHeaderPagination(BasePagination):
    """Paginates a queryset that the view sorts by id, highest first.

    The cursor is the id of the page's last row, so new rows do not shift the next page. It has a signature, so that
    only the list that issued the cursor accepts it.
    """

    default_limit = 50
    largest_limit = 200

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        limit = self._limit(request.query_params.get("limit"))
        cursor = request.query_params.get("cursor")
        if cursor is not None:
            queryset = queryset.filter(pk__lt=self._last_id(cursor, request))
        rows = list(queryset[: limit + 1])
        self._next_url = None
        if len(rows) > limit:
            rows.pop()
            next_cursor = signing.dumps(rows[-1].pk, salt=_salt(request))
            self._next_url = replace_query_param(request.build_absolute_uri(), "cursor", next_cursor)
        return rows

    def get_paginated_response(self, data: Any) -> Response:
        return Response(data, headers={"Link": f'<{self._next_url}>; rel="next"'} if self._next_url else {})

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": "limit",
                "in": "query",
                "description": f"Rows on the page. Above {self.largest_limit} it is {self.largest_limit}.",
                "schema": {"type": "integer", "minimum": 1, "default": self.default_limit},
            },
            {
                "name": "cursor",
                "in": "query",
                "description": "Where the page begins: take the URL of the `Link` header as it is.",
                "schema": {"type": "string"},
            },
        ]

    def _limit(self, text: str | None) -> int:
        if text is None:
            return self.default_limit
        if not (text.isascii() and text.isdigit()) or not text.strip("0"):
            raise ValidationError({"limit": f"Must be a number from 1 to {self.largest_limit}."})
        # The length is checked first, because int() refuses thousands of digits.
        return self.largest_limit if len(text.lstrip("0")) > 3 else min(int(text), self.largest_limit)

    def _last_id(self, cursor: str, request: Request) -> int:
        try:
            return signing.loads(cursor, salt=_salt(request))
        except signing.BadSignature as error:
            raise ValidationError({"cursor": "Must be one from a Link header of this list."}) from error


def _salt(request: Request) -> str:
    """Return the salt for signing a cursor, so that only the list that issued the cursor accepts it."""
    return f"{__name__} {request.path}"
