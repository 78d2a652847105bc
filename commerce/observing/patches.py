"""Patches of OpenTelemetry's private parts. This module needs the optional SDK."""

from opentelemetry.sdk.trace.export import BatchSpanProcessor

LAST_SPANS_TIMEOUT_S = 2.0
"""Seconds that an ending process has to send its remaining spans. In all, it has ten seconds to end."""


class PromptSpanProcessor(BatchSpanProcessor):
    """A span processor that waits at most `LAST_SPANS_TIMEOUT_S` for a silent collector when the process ends.

    Reason: `shutdown` takes no timeout and waits for up to 30 s.
    Upstream: https://github.com/open-telemetry/opentelemetry-python/issues/4623
    Guard: tests/test_tracing.py, `test_a_silent_collector_does_not_keep_a_process_from_ending`.
    It can go when `TracerProvider.shutdown` or the processor's constructor takes a timeout.
    """

    def shutdown(self) -> None:
        self._batch_processor.shutdown(timeout_millis=int(LAST_SPANS_TIMEOUT_S * 1000))
