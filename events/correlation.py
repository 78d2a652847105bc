"""The request id and the trace that log lines and event headers carry."""

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
"""Pattern of an accepted request id. Other characters could forge a log line."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the current request; empty if there is none.

Within `log_context`, it is the request id in the headers of the message.
"""

_propagator = TraceContextTextMapPropagator()
TRACE_HEADERS = ("traceparent", "tracestate")
"""Names of the headers that carry a request's trace. Source: https://www.w3.org/TR/trace-context/"""


def trace_id() -> str:
    """Return the id of the current trace as 32 hexadecimal digits; an empty string outside a trace."""
    known = trace.get_current_span().get_span_context()
    return f"{known.trace_id:032x}" if known.is_valid else ""


def current_traceparent() -> str:
    """Return the `traceparent` of the current trace. Outside a trace, return that of a new, unsampled trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent") or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def received_context(headers: Mapping[str, str]) -> Context:
    """Return the W3C trace context in `headers`; an empty context without one. Names must be in lower case."""
    return _propagator.extract(headers, Context())


def trace_context(headers: Iterable[tuple[str, bytes | None]]) -> Context:
    """Return the W3C trace context in the headers of a message; an empty context without one."""
    return received_context(
        {
            name: value.decode("ascii", "replace")
            for name, value in headers
            if name in TRACE_HEADERS and value is not None
        }
    )


@contextmanager
def log_context(headers: Iterable[tuple[str, bytes | None]]) -> Iterator[None]:
    """Within the block, log lines carry the request id and the trace of the message with these headers."""
    named = next((value for name, value in headers if name == REQUEST_ID_HEADER and value), b"")
    text = named.decode("ascii", "replace")
    id_token = request_id.set(text if REQUEST_ID.fullmatch(text) else "")
    trace_token = context.attach(trace_context(headers))
    try:
        yield
    finally:
        context.detach(trace_token)
        request_id.reset(id_token)
