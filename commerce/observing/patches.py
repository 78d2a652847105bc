"""Patches of OpenTelemetry's private parts. Importing this needs its SDK, which is optional."""

from opentelemetry.sdk.trace.export import BatchSpanProcessor

LAST_SPANS_TIMEOUT_S = 2.0
"""A process that ends sends what is left in this time, of the ten seconds it has."""


class PromptSpanProcessor(BatchSpanProcessor):
    """Wait for a silent collector no longer than `LAST_SPANS_TIMEOUT_S` at the end of a process.

    Reason: `shutdown` takes no timeout, and waits for up to 30 s.
    Upstream: https://github.com/open-telemetry/opentelemetry-python/issues/4623
    Guard: tests/test_tracing.py, `test_a_silent_collector_does_not_keep_a_process_from_ending`.
    It can go when `TracerProvider.shutdown` or the processor's constructor takes a timeout.
    """

    def shutdown(self) -> None:
        self._batch_processor.shutdown(timeout_millis=int(LAST_SPANS_TIMEOUT_S * 1000))
