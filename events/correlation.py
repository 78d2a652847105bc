"""What this is about: the request's id and its trace, on every line of the log and in the headers of its events."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
"""What is taken for one; anything else could forge a line of the log."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Empty where nothing is known."""

_propagator = TraceContextTextMapPropagator()


def trace_id() -> str:
    """The current trace's, 32 hexadecimal digits; empty outside one."""
    known = trace.get_current_span().get_span_context()
    return f"{known.trace_id:032x}" if known.is_valid else ""


def trace_context(headers: Iterable[tuple[str, bytes | None]]) -> Context:
    """The W3C trace context of a message; an empty one where it has none."""
    carrier = {
        name: value.decode("ascii", "replace")
        for name, value in headers
        if name in ("traceparent", "tracestate") and value is not None
    }
    return _propagator.extract(carrier, Context())


@contextmanager
def about(headers: Iterable[tuple[str, bytes | None]]) -> Iterator[None]:
    """Within it, lines of the log tell of the request that a message comes from."""
    named = next((value for name, value in headers if name == REQUEST_ID_HEADER and value), b"")
    text = named.decode("ascii", "replace")
    id_token = request_id.set(text if REQUEST_ID.fullmatch(text) else "")
    trace_token = context.attach(trace_context(headers))
    try:
        yield
    finally:
        context.detach(trace_token)
        request_id.reset(id_token)
