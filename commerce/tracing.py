"""The W3C trace context of a request, for the events that come of it."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from opentelemetry import context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()


class TraceContextMiddleware:
    """Makes the caller's `traceparent` the current trace while the request is served."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        carrier = {name.lower(): value for name, value in request.headers.items()}
        token = context.attach(_propagator.extract(carrier))
        try:
            return self._get_response(request)
        finally:
            context.detach(token)
