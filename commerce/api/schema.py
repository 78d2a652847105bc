"""The parts that all operations of the OpenAPI document share: problems, headers, pagination, and types.

Parameters and bodies come from serializers, filters and pagination. Each app describes its own operations in the
`schema.py` beside its views, with drf-spectacular's `extend_schema`. If an app describes a status from 400 on without a
body, `AutoSchema` adds the body of a problem. It also adds the problems that all operations of one kind share.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django.conf import settings
from drf_spectacular.drainage import warn
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema as SpectacularSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from commerce.api.pagination import LinkHeaderPagination
from commerce.api.problems import CONTENT_TYPE as PROBLEM_JSON
from commerce.api.problems import problem

EXAMPLE_SITE = "http://127.0.0.1:8080"
"""Address of this site in the examples of the generated document.

`OpenAPIView` replaces it with the address to which the client sent the request.
"""
DESCRIPTION = f"""\
## Conventions

JSON in, JSON out, camelCase. Amounts are JSON numbers with their exact decimal digits; timestamps are UTC, RFC 3339,
with milliseconds and `Z`. Unknown fields of a body are ignored. Numbers in a body may have any JSON spelling (`2`,
`2.0`, `1e2`); a string or a boolean instead of a number is refused. A body has at most
{settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.

Errors are problem details (RFC 9457). An unsupported method is answered with 405 and `Allow`, an unknown path with 404.
If `THROTTLE_USER` is set, every operation of a user may answer 429.

Lists are plain arrays, newest (highest id) first. The next page is in the `Link` header (RFC 8288).

A request may have an id in `X-Request-ID` (1 to 128 letters, digits and any of `_.:/+=@-`); otherwise it gets one. The
answer, the resulting events and the log lines carry this id."""

PROBLEMS = {
    400: "The request is not valid; `errors` names each invalid field.",
    401: "The token is missing, invalid or expired.",
    404: "It does not exist, or it belongs to another user.",
    413: f"The body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.",
    415: "The body is not `application/json`.",
    429: "Too many requests.",
    500: "The server failed. Whether a change was made is not known.",
}
"""Descriptions of the problem responses that operations share, by status. An operation may replace one of them."""
EXAMPLE_OF_ERROR = {"pointer": "/limit", "detail": f"Must be a number from 1 to {LinkHeaderPagination.largest_limit}."}
"""Example of an entry of `errors` in a response 400, for operations that give no example."""
HEADERS_OF_PROBLEMS = {
    401: {
        "WWW-Authenticate": {"schema": {"type": "string"}, "description": '`Bearer realm="api"`', "required": True},
    },
    429: {
        "Retry-After": {
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
            "description": "Seconds to wait before the next attempt.",
            "required": True,
        },
    },
}
IDENTIFIER = OpenApiParameter(
    "id", {"type": "integer", "format": "int64", "minimum": 1, "maximum": 2**63 - 1}, OpenApiParameter.PATH
)
LINK = OpenApiParameter(
    "Link",
    {"type": "string", "pattern": '^<[^>]+>; rel="next"$'},
    OpenApiParameter.HEADER,
    response=[200],
    description="The next page with the same filters; missing on the last page.",
)
X_REQUEST_ID = {"schema": {"type": "string"}, "required": True, "description": "The id of the request."}
"""The `X-Request-ID` header, which every response has."""


class PointedErrorSerializer(serializers.Serializer[Any]):
    pointer = serializers.CharField(
        help_text="JSON pointer (RFC 6901) into the body, or `/` and the name of a query parameter. Empty: the whole."
    )
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """Problem details (RFC 9457)."""

    type = serializers.CharField(help_text="`about:blank`: the status says what kind of problem it is.")
    title = serializers.CharField(help_text="The status in words.")
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What happened, for people.")
    errors = PointedErrorSerializer(  # type: ignore[assignment]
        many=True, required=False, help_text="With a 400: each invalid field."
    )


class AutoSchema(SpectacularSchema):
    """Describes an operation with the parts that all operations share. A missing summary makes `make lint` fail."""

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Return drf-spectacular's description of the operation, and add its responses from status 400 on."""
        operation = super().get_operation(*args, **kwargs)
        if operation is not None:
            self._complete_responses(operation)
        return operation

    def get_summary(self) -> str:
        warn(f"{self.method} {self.path} has no summary: describe it with extend_schema in the schema.py of its app")
        return ""

    def get_description(self) -> str:  # type: ignore[override]
        """Return an empty text, because docstrings of views address readers of the code."""
        return ""

    def get_request_serializer(self) -> Any:
        """Return None: an operation without a described request ignores its body."""

    def get_override_parameters(self) -> list[Any]:
        parameters: list[Any] = [IDENTIFIER] if "{id}" in self.path else []
        if self._lists:
            parameters += [filters] if (filters := getattr(self.view, "filter_serializer_class", None)) else []
            parameters.append(LINK)
        return parameters

    def get_paginated_name(self, serializer_name: str) -> str:
        return f"{serializer_name}List"

    @property
    def _lists(self) -> bool:
        return getattr(self.view, "action", None) == "list"

    def _complete_responses(self, operation: dict[str, Any]) -> None:
        responses = operation["responses"]
        own = {
            int(status): responses.pop(status)["description"]
            for status in list(responses)
            if int(status) >= 400 and "content" not in responses[status]
        }
        for response in responses.values():
            response["description"] = response["description"] or operation["summary"]
        for status in sorted({*own, *self._usual_problems(operation)}):
            responses[str(status)] = self._refusal(status, own.get(status) or PROBLEMS[status])

    def _usual_problems(self, operation: dict[str, Any]) -> Iterator[int]:
        """Yield the statuses of the problems that the operation shares with operations like it.

        They depend on its method, path, request body and security, and on whether it returns a list.
        """
        yield 500
        if self.method in ("POST", "PATCH"):
            yield 413
        if "requestBody" in operation:
            yield from (400, 415)
        if self._lists:
            yield 400
        if any(operation.get("security", [])):
            yield from (401, 429)
        if "{id}" in self.path:
            yield 404

    def _refusal(self, status: int, description: str) -> dict[str, Any]:
        if status == 400:
            own = [example.value for example in self.get_examples() if example.status_codes == ["400"]]
            example = problem(status, "The request is not valid.", errors=own or [EXAMPLE_OF_ERROR])
        else:
            example = problem(status, description)
        schema = self.resolve_serializer(ProblemSerializer, "response").ref
        refusal = {
            "content": {PROBLEM_JSON: {"schema": schema, "examples": {"Example": {"value": example}}}},
            "description": description,
        }
        headers = HEADERS_OF_PROBLEMS.get(status)
        return {"headers": dict(headers), **refusal} if headers else refusal


class ExactAmount(OpenApiSerializerFieldExtension):
    """Describes amounts as never negative. drf-spectacular would allow negative amounts in responses."""

    target_class = "rest_framework.serializers.DecimalField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        amount = {"type": "number", "minimum": 0}
        if direction == "response":
            return amount
        field = self.target
        largest = Decimal(10) ** (field.max_digits - field.decimal_places) - Decimal(10) ** -field.decimal_places
        return amount | {"maximum": float(largest), "multipleOf": 10**-field.decimal_places}


class BoundedList(OpenApiSerializerFieldExtension):
    """Describes a list in a body with the bounds of its length, which drf-spectacular leaves out."""

    target_class = "rest_framework.serializers.ListSerializer"

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        items = {"type": "array", "items": auto_schema.resolve_serializer(self.target.child, direction).ref}
        if not self.target.allow_empty:
            items["minItems"] = 1
        if self.target.max_length is not None:
            items["maxItems"] = self.target.max_length
        return items


def complete(result: dict[str, Any], **context: Any) -> dict[str, Any]:
    """Add the description and the header `X-Request-ID`, mark ids as int64, and let parameters refer to named enums.

    This is a postprocessing hook of drf-spectacular.
    """
    result["info"]["description"] = DESCRIPTION
    schemas = result["components"]["schemas"]
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            if field.get("type") == "integer" and (name == "id" or name.endswith("Id") or name == "offset"):
                field["format"] = "int64"
    enums = {tuple(schema["enum"]): name for name, schema in schemas.items() if "enum" in schema}
    for operation in (operation for methods in result["paths"].values() for operation in methods.values()):
        for parameter in operation.get("parameters", []):
            # The library names only the enums of bodies. Generated clients would get a second type for a filter.
            if name := enums.get(tuple(parameter["schema"].get("enum", []))):
                parameter["schema"] = {"$ref": f"#/components/schemas/{name}"}
        for answer in operation["responses"].values():
            answer.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
    result["components"]["headers"] = {"X-Request-ID": X_REQUEST_ID}
    return result
