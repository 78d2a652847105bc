"""One trace leads from the request to the notification, whether the fast path or the relay publishes the event.

The fast path publishes an event in the background, right after its transaction has committed.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import ProxyTracerProvider, SpanKind, StatusCode
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.observing.patches import LAST_SPANS_TIMEOUT_S
from conftest import Topics
from events.consuming.consumer import EventConsumer
from events.kafka import Consumer
from events.kafka.reading_ahead import ReadAhead
from events.models import OutboxEvent
from events.observing import tracing
from events.outbox.publisher import current_publisher
from events.outbox.relay import Relay
from events.wire.headers import unpack
from notifications.mail.opting_out import link_for
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS
from testkit.kafka_client import produce
from testkit.processes import CHECKOUT
from testkit.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

ITEM = {"productId": 1, "quantity": 2, "price": 100}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Return an exporter that collects the spans of this test.

    The fixture replaces OpenTelemetry's private variable, because the public setter works only once in a process.
    """
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def consume_until(topic: str, condition: Callable[[], object]) -> None:
    stop = threading.Event()

    def run() -> None:
        source = ReadAhead(Consumer(topic=topic, group="traced", batch_size=500))
        try:
            EventConsumer(
                source=source, subscription=replace(NOTIFICATIONS, group="traced"), stopping=stop.is_set
            ).run()
        finally:
            source.close()
            connection.close()

    consumer = threading.Thread(target=run)
    consumer.start()
    try:
        wait_until(condition)
    finally:
        stop.set()
        consumer.join(10)


def spans_by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("path", ["fast", "relay"])
def test_one_trace_spans_request_event_and_notification(
    api: APIClient, topics: Topics, spans: InMemorySpanExporter, settings: Settings, path: str
) -> None:
    if path == "fast":
        settings.EVENT_PUBLISHER = "events.outbox.publisher.BackgroundPublisher"
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert api.post("/api/orders", {"items": [ITEM]}, format="json", headers={"traceparent": caller}).status_code == 201
    if path == "relay":
        relay = Relay(stopping=lambda: False, wait=time.sleep)
        assert relay.sweep(older_than=timedelta(0)) == (1, None)
        relay.close()
    consume_until(topics.order_events, lambda: "save traced" in spans_by_name(spans))
    if path == "fast":
        current_publisher().close()

    row = OutboxEvent.objects.get()
    named_spans = spans_by_name(spans)
    request, sent = named_spans["POST /api/orders"], named_spans[f"send {topics.order_events}"]
    processed, saved = named_spans[f"process {topics.order_events}"], named_spans["save traced"]
    assert {span.context.trace_id for span in named_spans.values()} == {0x0AF7651916CD43DD8448EB211C80319C}
    assert request.parent.span_id == 0xB7AD6B7169203331
    assert sent.parent.span_id == processed.parent.span_id == request.context.span_id
    assert saved.parent.span_id == processed.context.span_id
    assert [span.kind for span in (request, sent, processed)] == [SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER]
    assert attributes(request)["http.response.status_code"] == 201
    position = {
        "messaging.system": "kafka",
        "messaging.destination.name": topics.order_events,
        "messaging.destination.partition.id": str(row.published_partition),
        "messaging.kafka.offset": row.published_offset,
    }
    assert position.items() <= attributes(sent).items()
    assert position.items() <= attributes(processed).items()
    assert (attributes(sent)["messaging.operation.type"], attributes(sent)["outbox.path"]) == ("send", path)
    assert attributes(processed)["messaging.consumer.group.name"] == "traced"
    for span in (sent, processed, saved):
        assert span.start_time < span.end_time
    assert Notification.objects.count() == 1


def test_poison_is_a_span_that_failed(topics: Topics, spans: InMemorySpanExporter) -> None:
    sampled = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    produce(topics.order_events, b"garbage", headers=[("traceparent", sampled)])
    consume_until(topics.order_events, lambda: spans_by_name(spans))
    (span,) = spans.get_finished_spans()
    assert span.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert (span.status.status_code, attributes(span)["error.type"]) == (StatusCode.ERROR, "Poison")


def test_a_trace_that_its_caller_does_not_sample_leaves_no_span(
    api: APIClient, topics: Topics, spans: InMemorySpanExporter
) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    api.post("/api/orders", {"items": [ITEM]}, format="json", headers={"traceparent": caller})
    relay = Relay(stopping=lambda: False, wait=time.sleep)
    relay.sweep(older_than=timedelta(0))
    relay.close()
    assert not spans.get_finished_spans()


def test_no_span_has_the_token_of_a_mails_link(client: Client, user: User, spans: InMemorySpanExporter) -> None:
    path = urlsplit(link_for(user.pk)).path
    assert client.get(path).status_code == 200
    assert client.get(f"{path}x").status_code == 404
    named = [attributes(span)["url.path"] for span in spans.get_finished_spans()]
    assert named == ["/email/opt-out/***"] * 2


def test_tracing_is_off_unless_it_is_configured() -> None:
    assert isinstance(trace.get_tracer_provider(), ProxyTracerProvider)
    assert not tracing.is_on()


LAST_SPAN = "from opentelemetry import trace; trace.get_tracer('test').start_span('last').end()"


def end_with_a_span(collector_port: int) -> float:
    """Run a process that makes one span and ends. Return its lifetime in seconds."""
    begun = time.monotonic()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "django",
            "shell",
            "-c",
            LAST_SPAN,
        ],
        cwd=CHECKOUT,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "commerce.settings",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector_port}",
        },
        check=True,
        timeout=60,
    )
    return time.monotonic() - begun


def test_an_ending_process_sends_its_last_spans() -> None:
    with socket.create_server(("127.0.0.1", 0)) as collector, ThreadPoolExecutor() as background:
        collector.settimeout(30)
        ending = background.submit(end_with_a_span, collector.getsockname()[1])
        caller, _ = collector.accept()
        with caller, caller.makefile("rb") as request:
            assert request.readline() == b"POST /v1/traces HTTP/1.1\r\n"
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        ending.result()


def test_a_silent_collector_does_not_keep_a_process_from_ending() -> None:
    with socket.create_server(("127.0.0.1", 0)) as collector:
        # By default, the exporter waits 10 s for an answer, and the SDK 30 s for the exporter.
        assert end_with_a_span(collector.getsockname()[1]) < LAST_SPANS_TIMEOUT_S + 6


def test_the_request_is_named_in_its_event(api: APIClient, user: User) -> None:
    api.post("/api/orders", {"items": [ITEM]}, format="json", headers={"x-request-id": "shop-7"})
    assert dict(unpack(OutboxEvent.objects.get().headers))["x-request-id"] == b"shop-7"
