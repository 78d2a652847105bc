"""What this is about: the request's id and its trace, on every line of the log and in the headers of its events."""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
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
TRACE_HEADERS = ("traceparent", "tracestate")
"""Source: https://www.w3.org/TR/trace-context/"""


def trace_id() -> str:
    """The current trace's, 32 hexadecimal digits; empty outside one."""
    known = trace.get_current_span().get_span_context()
    return f"{known.trace_id:032x}" if known.is_valid else ""


def current_traceparent() -> str:
    """The `traceparent` of the request being served; outside one, a fresh unsampled trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent") or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def received_context(headers: Mapping[str, str]) -> Context:
    """Return the W3C trace context that `headers` carry, by their names in lower case; an empty one for none."""
    return _propagator.extract(headers, Context())


def trace_context(headers: Iterable[tuple[str, bytes | None]]) -> Context:
    """The W3C trace context of a message; an empty one where it has none."""
    return received_context(
        {
            name: value.decode("ascii", "replace")
            for name, value in headers
            if name in TRACE_HEADERS and value is not None
        }
    )


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
