"""Descriptions of health and metrics for the OpenAPI document."""

from copy import deepcopy
from functools import partial
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers

from commerce.api.problems import CONTENT_TYPE as PROBLEM_JSON

READINESS = ["ready", "unavailable"]
REACHABILITY = ["up", "down"]


class LiveSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["live"])


class ReadySerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(READINESS)
    database = serializers.ChoiceField(REACHABILITY)
    kafka = serializers.ChoiceField(REACHABILITY, help_text="For information: orders do not need it.")


_operation = partial(extend_schema, tags=["Operation"])

describe_live = _operation(
    operation_id="live",
    summary="Can this process answer?",
    responses={200: OpenApiResponse(LiveSerializer, examples=[OpenApiExample("Example", {"status": "live"})])},
)
describe_ready = _operation(
    operation_id="ready",
    summary="Can this process do its work?",
    responses={
        200: OpenApiResponse(
            ReadySerializer,
            examples=[OpenApiExample("Example", {"status": "ready", "database": "up", "kafka": "up"})],
        ),
        503: OpenApiResponse(ReadySerializer, "The database does not answer."),
    },
)


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
            "The token is missing or wrong.",
            **{"WWW-Authenticate": {"schema": {"type": "string"}, "required": True, "description": "`Bearer`"}},
        ),
        "404": _refusal("No `METRICS_TOKEN` is configured."),
    },
}


def add_metrics(result: dict[str, Any], **context: Any) -> dict[str, Any]:
    """Add `GET /metrics`, which is not a DRF view. This is a postprocessing hook of drf-spectacular."""
    # Later hooks change the copy.
    result["paths"]["/metrics"] = {"get": deepcopy(METRICS)}
    result["components"]["securitySchemes"]["metricsToken"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "For `GET /metrics` alone: the value of the setting `METRICS_TOKEN`, which Prometheus sends. "
        "`make run` writes it to `var/run.env`. An access token is refused there.",
    }
    return result
