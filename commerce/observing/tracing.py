"""Give each request an id and a W3C trace context for its log lines and events, and, with tracing, a span."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode

from commerce.observing.log_lines import without_secrets
from events.correlation import REQUEST_ID, TRACE_HEADERS, received_context, request_id
from events.observing import tracing


def configure() -> None:
    """Send spans to `OTEL_EXPORTER_OTLP_ENDPOINT`. Without it, no spans are recorded.

    The exporter reads the other `OTEL_...` variables. Raise ImproperlyConfigured if the endpoint is set and the SDK is
    not installed.
    """
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        from commerce.observing.patches import PromptSpanProcessor
    except ImportError as error:
        raise ImproperlyConfigured(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but tracing is not installed: "
            "pip install -c constraints.txt opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from error

    provider = TracerProvider(resource=Resource.create({"service.name": settings.OTEL_SERVICE_NAME}))
    provider.add_span_processor(PromptSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class RequestIdMiddleware:
    """Set the id of the request for log lines, events and the response.

    It is the caller's `X-Request-ID`, or a new one if that is missing or malformed.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        name = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        token = request_id.set(name)
        try:
            response = self._get_response(request)
        finally:
            request_id.reset(token)
        response["X-Request-ID"] = name
        return response


class TraceContextMiddleware:
    """Continue the caller's trace, or begin one, while the request is handled."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with _traced(request) as span:
            response = self._get_response(request)
            if span.is_recording():
                _describe(span, request, response)
            return response


@contextmanager
def _traced(request: HttpRequest) -> Iterator[Span]:
    headers = {name: value for name in TRACE_HEADERS if (value := request.META.get(f"HTTP_{name.upper()}"))}
    span: Span = INVALID_SPAN
    if headers or tracing.is_on():
        span = trace.get_tracer("commerce").start_span(
            str(request.method), context=received_context(headers), kind=SpanKind.SERVER
        )
    if not span.get_span_context().is_valid:
        # Without tracing no span is recorded, but the request's log lines and events still share one trace id.
        span = NonRecordingSpan(SpanContext(secrets.randbits(128) or 1, secrets.randbits(64) or 1, is_remote=False))
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield span
    finally:
        context.detach(token)
        span.end()


def _describe(span: Span, request: HttpRequest, response: HttpResponse) -> None:
    """Set the span's name, attributes and status by the conventions for HTTP servers.

    Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server
    """
    route = f"/{request.resolver_match.route}" if request.resolver_match else ""
    if route:
        span.update_name(f"{request.method} {route}")
        span.set_attribute("http.route", route)
    span.set_attribute("http.request.method", str(request.method))
    span.set_attribute("url.path", without_secrets(request.path, secrets=()))
    span.set_attribute("url.scheme", request.scheme or "http")
    span.set_attribute("http.response.status_code", response.status_code)
    if response.status_code >= 500:
        span.set_status(Status(StatusCode.ERROR))
