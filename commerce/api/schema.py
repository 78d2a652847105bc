"""What the published OpenAPI document says of each operation, in one table, so that views need not say it.

Parameters and bodies come from the code (serializers, filters, pages). What the code cannot know stands here:
summaries, headers, examples, and which problems can occur.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from django.conf import settings
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.drainage import warn
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema as SpectacularSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiRequest, OpenApiResponse
from rest_framework import serializers
from rest_framework_simplejwt.settings import api_settings as jwt_settings

from commerce.accounts.serializers import NAME_TAKEN, RegistrationSerializer
from commerce.api.problems import CONTENT_TYPE as PROBLEM_JSON
from commerce.api.problems import problem
from notifications.serializers import NotificationSerializer
from orders.events import ORDER_EVENT_TYPES
from orders.serializers import MAX_ITEMS, NewOrderSerializer, OrderSerializer

JSON = "application/json"
OPENAPI_JSON = "application/vnd.oai.openapi+json"
ASYNCAPI_JSON = "application/vnd.aai.asyncapi+json"

DESCRIPTION = f"""\
JSON in, JSON out, camelCase. Amounts are JSON numbers with their exact decimal digits; timestamps are UTC, RFC 3339,
with milliseconds and `Z`. Unknown fields of a body are ignored. Numbers of a body may be spelled as JSON allows (`2`,
`2.0`, `1e2`); a string or a boolean in a number's place is refused. A body has at most
{settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.

Errors are problem details (RFC 9457). A method that a path does not have is answered with 405 and `Allow`, a path that
does not exist with 404. Where `THROTTLE_USER` is set, every operation of a user may answer 429.

Lists are plain arrays, newest (highest id) first. The next page is in the `Link` header (RFC 8288).

A request may name itself in `X-Request-ID` (1 to 128 letters, digits and any of `_.:/+=@-`). Its answer has that name,
or one that was made for it, as have the events that follow and the lines of the log."""


# --- Bodies that no serializer of the code describes ---------------------------------------------


class PointedErrorSerializer(serializers.Serializer[Any]):
    pointer = serializers.CharField(
        help_text="JSON pointer (RFC 6901) into the body, or `/` and the name of a query parameter; empty: the whole."
    )
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """Problem details (RFC 9457)."""

    type = serializers.CharField(help_text="`about:blank`: the status says what kind of problem it is.")
    title = serializers.CharField(help_text="The status in words.")
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What happened, for people.")
    errors = PointedErrorSerializer(  # type: ignore[assignment]
        many=True, required=False, help_text="Each place that is wrong, with a 400."
    )


class CredentialsSerializer(serializers.Serializer[Any]):
    username = serializers.CharField()
    password = serializers.CharField()


class RefreshTokenSerializer(serializers.Serializer[Any]):
    refresh = serializers.CharField()


class TokensSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(
        help_text=f"JWT for `Authorization: Bearer`, good for "
        f"{jwt_settings.ACCESS_TOKEN_LIFETIME.total_seconds() / 60:.0f} minutes."
    )
    refresh = serializers.CharField(
        help_text=f"JWT that gets new tokens once, within {jwt_settings.REFRESH_TOKEN_LIFETIME.days} days."
    )


class OrderEventStateSerializer(serializers.Serializer[Any]):
    """Where an event of an order is now; null is what is not known yet."""

    eventId = serializers.UUIDField()
    eventType = serializers.ChoiceField(ORDER_EVENT_TYPES, allow_null=True)
    sequence = serializers.IntegerField(min_value=1, help_text="1, 2, 3 ... within the order.")
    timestamp = serializers.DateTimeField(allow_null=True)
    state = serializers.ChoiceField(
        ["PENDING", "PUBLISHED", "DEAD", "NOTIFIED"],
        help_text="PENDING: committed, not yet on Kafka. PUBLISHED: on Kafka. DEAD: an open dead letter. "
        "NOTIFIED: its notification stands, which wins over DEAD.",
    )
    publishedAt = serializers.DateTimeField(allow_null=True)
    topic = serializers.CharField()
    partition = serializers.IntegerField(allow_null=True)
    offset = serializers.IntegerField(allow_null=True)
    notificationId = serializers.IntegerField(allow_null=True)


class LiveSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["live"])


class ReadySerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["ready", "unavailable"])
    database = serializers.ChoiceField(["up", "down"])
    kafka = serializers.ChoiceField(["up", "down"], help_text="Named only: orders are taken without it.")


# --- Problems and headers ------------------------------------------------------------------------

PROBLEMS = {
    400: "The request is not valid; `errors` names each place.",
    401: "No token, or one that is not or no longer good.",
    404: "There is none, or it is somebody else's.",
    409: "The status of the order forbids it.",
    413: f"The body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.",
    415: "The body is not `application/json`.",
    422: "This `Idempotency-Key` was used for another body.",
    429: "Too many requests.",
    500: "The server failed. Whether a change was made is not known.",
}
TOO_MANY_OF_THIS_ADDRESS = "Too many requests of this address within a minute."

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    # In double quotes; or bare, and then without spaces around it and without quotes on both sides.
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
IDENTIFIER = OpenApiParameter(
    "id", {"type": "integer", "format": "int64", "minimum": 1, "maximum": 2**63 - 1}, OpenApiParameter.PATH
)


def _answered(name: str, schema: Any, *statuses: int, description: str, required: bool = True) -> OpenApiParameter:
    return OpenApiParameter(
        name, schema, OpenApiParameter.HEADER, response=list(statuses), description=description, required=required
    )


WWW_AUTHENTICATE = _answered("WWW-Authenticate", {"type": "string"}, 401, description='`Bearer realm="api"`')
RETRY_AFTER = _answered(
    "Retry-After", {"type": "string", "pattern": "^[0-9]+$"}, 429, description="Seconds until another try makes sense."
)
LINK = _answered(
    "Link",
    {"type": "string", "pattern": '^<[^>]+>; rel="next"$'},
    200,
    description="The next page, filters included; missing on the last one.",
    required=False,
)
LOCATION = _answered(
    "Location", {"type": "string", "pattern": "^/api/orders/[0-9]+$"}, 201, description="Path of the order."
)
IDEMPOTENT_REPLAYED = _answered(
    "Idempotent-Replayed",
    {"type": "string", "enum": ["true"]},
    201,
    description="The answer of an earlier request with this `Idempotency-Key`.",
    required=False,
)
X_REQUEST_ID = {"schema": {"type": "string"}, "required": True, "description": "The name of the request."}
"""Of every answer."""

# --- Operations ----------------------------------------------------------------------------------

ORDER = {
    "id": 123,
    "userId": 45,
    "totalAmount": 200.00,
    "status": "PENDING",
    "createdAt": "2025-01-30T10:15:30.123Z",
    "items": [{"id": 1001, "productId": 1, "quantity": 2, "price": 100.00}],
}
NOTIFICATION = {
    "id": 678,
    "userId": 45,
    "type": "ORDER_CREATED",
    "message": "주문이 생성되었습니다. 주문번호: 123, 금액: 200.00원",
    "createdAt": "2025-01-30T10:15:30.456Z",
    "readAt": None,
    "orderId": 123,
    "eventId": "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
}
EVENT_STATE = {
    "eventId": "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
    "eventType": "ORDER_CREATED",
    "sequence": 1,
    "timestamp": "2025-01-30T10:15:30.123Z",
    "state": "NOTIFIED",
    "publishedAt": "2025-01-30T10:15:30.140Z",
    "topic": "order-events",
    "partition": 2,
    "offset": 17,
    "notificationId": 678,
}
TOKENS = {"access": "eyJhbGciOiJIUzI1NiIs...", "refresh": "eyJhbGciOiJIUzI1NiIs..."}
CREDENTIALS = {"username": "mina", "password": "correct horse battery"}


class Operation(NamedTuple):
    """What is to be said of one method of one path beyond what the code tells."""

    name: str
    tag: str
    summary: str
    answer: Any
    """Serializer or JSON schema of the good answer's body."""
    status: int = 200
    example: Any = None
    """Of that body."""
    media_type: str = JSON
    description: str = ""
    body: Any = None
    """Serializer of the request's body, with `body_example`."""
    body_example: Any = None
    parameters: tuple[OpenApiParameter, ...] = ()
    """Headers of the request and of the answers that are this operation's own."""
    problems: Mapping[int, str] = {}
    """By status, those that are this operation's own or differ from `PROBLEMS`."""
    wrong: Mapping[str, str] = {"pointer": "/limit", "detail": "Must be a number from 1 to 200."}
    """Example of what may be wrong with a request."""
    other_answers: Mapping[int, OpenApiResponse] = {}


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/api/auth/register"): Operation(
        name="register",
        tag="Accounts",
        summary="Register a customer",
        description="A weak password and a name that is taken are 400. An address has 60 requests a minute.",
        body=RegistrationSerializer,
        body_example=CREDENTIALS | {"email": "mina@example.com"},
        wrong={"pointer": "/username", "detail": str(NAME_TAKEN)},
        answer=RegistrationSerializer,
        status=201,
        example={"id": 45, "username": "mina"},
        problems={429: TOO_MANY_OF_THIS_ADDRESS},
    ),
    ("POST", "/api/auth/token"): Operation(
        name="logIn",
        tag="Accounts",
        summary="Get tokens for a name and a password",
        description="An address has 60 requests a minute. After ten wrong passwords for one name from one "
        "address that pair is locked for five minutes, even for the right password.",
        body=CredentialsSerializer,
        body_example=CREDENTIALS,
        wrong={"pointer": "/password", "detail": "This field is required."},
        answer=TokensSerializer,
        example=TOKENS,
        problems={
            401: "Name and password do not belong together.",
            429: f"{TOO_MANY_OF_THIS_ADDRESS[:-1]}, or too many wrong passwords for this name.",
        },
    ),
    ("POST", "/api/auth/token/refresh"): Operation(
        name="refreshTokens",
        tag="Accounts",
        summary="Get new tokens for a refresh token",
        description="The old refresh token is dead afterwards; of two parallel uses one is 401. An address and a user "
        "have 60 requests a minute each.",
        body=RefreshTokenSerializer,
        body_example={"refresh": TOKENS["refresh"]},
        wrong={"pointer": "/refresh", "detail": "This field is required."},
        answer=TokensSerializer,
        example=TOKENS,
        problems={
            401: "The refresh token was used before, has expired, or is none.",
            429: "Too many requests from this address or by this user.",
        },
    ),
    ("POST", "/api/orders"): Operation(
        name="placeOrder",
        tag="Orders",
        summary="Place an order",
        description="Answered as soon as the order and its event are committed; it never waits for Kafka.",
        body=NewOrderSerializer,
        body_example={"items": [{"productId": 1, "quantity": 2, "price": 100.00}]},
        wrong={"pointer": "/items/0/quantity", "detail": "Ensure this value is greater than or equal to 1."},
        answer=OrderSerializer,
        status=201,
        example=ORDER,
        parameters=(IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, LOCATION),
        problems={409: "A request with this `Idempotency-Key` is still being handled.", 422: PROBLEMS[422]},
    ),
    ("GET", "/api/orders"): Operation(
        name="listOrders",
        tag="Orders",
        summary="The caller's own orders, newest first",
        answer=OrderSerializer(many=True),
        example=ORDER,
        parameters=(LINK,),
    ),
    ("GET", "/api/orders/{id}"): Operation(
        name="getOrder", tag="Orders", summary="One of the caller's orders", answer=OrderSerializer, example=ORDER
    ),
    ("POST", "/api/orders/{id}/pay"): Operation(
        name="payOrder",
        tag="Orders",
        summary="Pay an order",
        description="From PENDING only. Body and content type are ignored.",
        answer=OrderSerializer,
        example=ORDER | {"status": "PAID"},
        problems={409: PROBLEMS[409]},
    ),
    ("POST", "/api/orders/{id}/cancel"): Operation(
        name="cancelOrder",
        tag="Orders",
        summary="Cancel an order",
        description="From PENDING or PAID. Body and content type are ignored.",
        answer=OrderSerializer,
        example=ORDER | {"status": "CANCELLED"},
        problems={409: PROBLEMS[409]},
    ),
    ("GET", "/api/orders/{id}/events"): Operation(
        name="listOrderEvents",
        tag="Orders",
        summary="Where each event of an order is now, oldest first",
        answer=OrderEventStateSerializer(many=True),
        example=EVENT_STATE,
    ),
    ("GET", "/api/notifications"): Operation(
        name="listNotifications",
        tag="Notifications",
        summary="The caller's own notifications, newest first",
        answer=NotificationSerializer(many=True),
        example=NOTIFICATION,
        parameters=(LINK,),
    ),
    ("POST", "/api/notifications/{id}/read"): Operation(
        name="readNotification",
        tag="Notifications",
        summary="Mark a notification as read",
        description="Repeating it changes nothing. Body and content type are ignored.",
        answer=NotificationSerializer,
        example=NOTIFICATION | {"readAt": "2025-01-30T10:20:00.000Z"},
    ),
    ("GET", "/api/schema"): Operation(
        name="getOpenAPI",
        tag="Documents",
        summary="This document",
        answer=OpenApiTypes.OBJECT,
        media_type=OPENAPI_JSON,
    ),
    ("GET", "/api/docs"): Operation(
        name="getDocs",
        tag="Documents",
        summary="This document as a page to try things on",
        answer=OpenApiTypes.STR,
        media_type="text/html",
    ),
    ("GET", "/api/asyncapi"): Operation(
        name="getAsyncAPI",
        tag="Documents",
        summary="The events on Kafka, as an AsyncAPI 3 document",
        answer=OpenApiTypes.OBJECT,
        media_type=ASYNCAPI_JSON,
    ),
    ("GET", "/health/live"): Operation(
        name="live",
        tag="Operation",
        summary="Can this process answer?",
        answer=LiveSerializer,
        example={"status": "live"},
    ),
    ("GET", "/health/ready"): Operation(
        name="ready",
        tag="Operation",
        summary="Can this process do its work?",
        answer=ReadySerializer,
        example={"status": "ready", "database": "up", "kafka": "up"},
        other_answers={503: OpenApiResponse(ReadySerializer, "The database does not answer.")},
    ),
}


def _refusal(description: str, **headers: Any) -> dict[str, Any]:
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "headers": headers, "content": content}


METRICS = {
    "operationId": "getMetrics",
    "tags": ["Operation"],
    "summary": "Metrics as Prometheus reads them",
    "security": [{"metricsToken": []}],
    "responses": {
        "200": {"description": "Metrics of all processes.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        "401": _refusal(
            "A wrong token, or none.",
            **{"WWW-Authenticate": {"schema": {"type": "string"}, "required": True, "description": "`Bearer`"}},
        ),
        "404": _refusal("No `METRICS_TOKEN` is configured."),
    },
}
"""Of `GET /metrics`, which speaks Prometheus's text and is no view of the REST framework."""

_LINKS = ("admin", "apiDocumentation", "openapi", "asyncapi", "healthLive", "healthReady")
START: dict[str, Any] = {
    "operationId": "getLinks",
    "tags": ["Operation"],
    "summary": "Where to go from here",
    "responses": {
        "200": {
            "description": "Paths on this site. A client whose `Accept` ranks HTML above JSON gets a page.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            **{name: {"type": "string"} for name in _LINKS},
                            "demoAccounts": {
                                "type": "array",
                                "description": "In development only.",
                                "items": {
                                    "type": "object",
                                    "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
                                    "required": ["username", "password"],
                                },
                            },
                        },
                        "required": list(_LINKS),
                    }
                },
                "text/html": {"schema": {"type": "string"}},
            },
        }
    },
}
"""Of `GET /`, which answers people and programs and is no view of the REST framework."""


class AutoSchema(SpectacularSchema):
    """Describes an operation from its entry in `OPERATIONS`; one without is a warning, on which `make lint` fails."""

    @property
    def operation(self) -> Operation:
        known = OPERATIONS.get((self.method, self.path))
        if known is None:
            warn(f"{self.method} {self.path} has no entry in commerce.api.schema.OPERATIONS")
            return Operation(name=super().get_operation_id(), tag="", summary="", answer=OpenApiTypes.OBJECT)
        return known

    @property
    def _lists(self) -> bool:
        return getattr(self.view, "action", None) == "list"

    def get_operation_id(self) -> str:
        return self.operation.name

    def get_tags(self) -> list[str]:
        return [self.operation.tag]

    def get_summary(self) -> str:
        return self.operation.summary

    def get_description(self) -> str:  # type: ignore[override]
        return self.operation.description

    def get_request_serializer(self) -> Any:
        if self.operation.body is None:
            return None
        example = OpenApiExample("Example", self.operation.body_example, request_only=True)
        return {JSON: OpenApiRequest(self.operation.body, examples=[example])}

    def get_override_parameters(self) -> list[Any]:
        parameters: list[Any] = [IDENTIFIER] if "{id}" in self.path else []
        if self._lists and (filters := getattr(self.view, "filter_serializer_class", None)):
            parameters.append(filters)
        return [*parameters, *self.operation.parameters, WWW_AUTHENTICATE, RETRY_AFTER]

    def get_response_serializers(self) -> Any:
        operation = self.operation
        examples = [OpenApiExample("Example", operation.example)] if operation.example is not None else []
        good = OpenApiResponse(operation.answer, operation.summary, examples)
        others = {(str(status), JSON): answer for status, answer in operation.other_answers.items()}
        problems = {
            (str(status), PROBLEM_JSON): OpenApiResponse(
                ProblemSerializer,
                operation.problems.get(status, PROBLEMS[status]),
                [OpenApiExample("Example", self._example_of_problem(status))],
            )
            for status in sorted({*operation.problems, *self._usual_problems()})
        }
        return {(str(operation.status), operation.media_type): good} | others | problems

    def _usual_problems(self) -> Iterator[int]:
        """What follows from what every operation of this kind does."""
        yield 500
        if self.method == "POST":
            yield 413
        if self.operation.body is not None:
            yield from (400, 415)
        if self._lists:
            yield 400
        if any(self.get_auth()):
            yield from (401, 429)
        if "{id}" in self.path:
            yield 404

    def _example_of_problem(self, status: int) -> dict[str, Any]:
        if status == 400:
            return problem(status, "The request is not valid.", errors=[dict(self.operation.wrong)])
        return problem(status, self.operation.problems.get(status, PROBLEMS[status]))

    def get_paginated_name(self, serializer_name: str) -> str:
        return f"{serializer_name}List"


class TokenScheme(SimpleJWTScheme):
    target_class = "commerce.accounts.authentication.TokenAuthentication"


class ExactAmount(OpenApiSerializerFieldExtension):
    """Amounts as the contract has them: of answers the library would say that they may be negative."""

    target_class = "rest_framework.serializers.DecimalField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        amount = {"type": "number", "minimum": 0}
        if direction == "response":
            return amount
        field = self.target
        largest = Decimal(10) ** (field.max_digits - field.decimal_places) - Decimal(10) ** -field.decimal_places
        return amount | {"maximum": float(largest), "multipleOf": 10**-field.decimal_places}


def complete(result: dict[str, Any], **context: Any) -> dict[str, Any]:
    """Hook of the generator: add what it has no other place for."""
    result["info"]["description"] = DESCRIPTION
    result["paths"] = {"/": {"get": START}} | result["paths"] | {"/metrics": {"get": METRICS}}
    schemas = result["components"]["schemas"]
    schemas["NewOrderRequest"]["properties"]["items"] |= {"minItems": 1, "maxItems": MAX_ITEMS}
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            if field.get("type") == "integer" and (name.lower().endswith("id") or name == "offset"):
                field["format"] = "int64"
    enums = {tuple(schema["enum"]): name for name, schema in schemas.items() if "enum" in schema}
    for operation in (operation for methods in result["paths"].values() for operation in methods.values()):
        for parameter in operation.get("parameters", []):
            # The library names the enums of bodies alone; clients would get a second type for a filter.
            if name := enums.get(tuple(parameter["schema"].get("enum", []))):
                parameter["schema"] = {"$ref": f"#/components/schemas/{name}"}
        for answer in operation["responses"].values():
            answer.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
    result["components"]["headers"] = {"X-Request-ID": X_REQUEST_ID}
    result["components"]["securitySchemes"]["metricsToken"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "The value of `METRICS_TOKEN`.",
    }
    return result
