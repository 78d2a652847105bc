import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from pytest_django import Settings

from conftest import Topics
from events.kafka.lag import group_lag
from events.observing import readings
from events.observing.metrics import count_consumed, declare, observe_latencies
from events.observing.patches import BatchHistogram
from events.observing.readings import PipelineCollector
from events.outbox.relay import Relay
from events.wire.timestamps import now
from testkit.factories import OrderEventFactory, OutboxEventFactory
from testkit.kafka_client import produce
from testkit.subscriptions import member_of, read_and_commit


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def scraped(collector: PipelineCollector) -> dict[str, float]:
    lines = generate_latest(collector).decode().splitlines()
    return {name: float(number) for name, number in (one.rsplit(" ", 1) for one in lines if one[0] != "#")}


def test_a_batch_fills_the_same_buckets_as_single_values() -> None:
    values = [0.0, 0.1, 0.100001, 0.5, 0.5, 3.0]
    registry = CollectorRegistry()
    at_once = BatchHistogram("at_once", "", buckets=[0.1, 0.5, 1], registry=registry)
    at_once.observe_all(values)
    one_by_one = BatchHistogram("one_by_one", "", buckets=[0.1, 0.5, 1], registry=registry)
    for one in values:
        one_by_one.observe(one)
    buckets = [
        {sample.labels["le"]: sample.value for sample in metric.samples if sample.name.endswith("_bucket")}
        for metric in registry.collect()
    ]
    assert buckets == [{"0.1": 2, "0.5": 5, "1.0": 5, "+Inf": 6}] * 2
    assert registry.get_sample_value("at_once_sum") == pytest.approx(registry.get_sample_value("one_by_one_sum"))


DAY_S = 24 * 60 * 60.0


@pytest.mark.parametrize(
    ("latency_s", "counted_as"),
    [
        (0.0, "measured"),
        (DAY_S, "measured"),
        (-5.0, "measured"),
        (DAY_S + 0.001, "old"),
        (365 * DAY_S, "old"),
        (-5.001, "future"),
        (-2 * 60 * 60.0, "future"),
    ],
)
def test_an_event_beyond_a_day_or_of_the_future_is_counted_apart(latency_s: float, counted_as: str) -> None:
    def counts() -> dict[str, float]:
        return {
            "measured": value("event_end_to_end_seconds_count", group="g"),
            "old": value("event_end_to_end_unmeasured_total", group="g", reason="old"),
            "future": value("event_end_to_end_unmeasured_total", group="g", reason="future"),
        }

    before, sum_before = counts(), value("event_end_to_end_seconds_sum", group="g")
    observe_one_event(timestamp=0.0, saved_at=latency_s)
    assert {name: count - before[name] for name, count in counts().items()} == {
        "measured": 0,
        "old": 0,
        "future": 0,
        counted_as: 1,
    }
    added = value("event_end_to_end_seconds_sum", group="g") - sum_before
    assert added == pytest.approx(max(0.0, latency_s) if counted_as == "measured" else 0, abs=1e-6)


@pytest.mark.parametrize("year", [1, 1970, 2025, 9999])
def test_no_year_moves_the_sum_of_latencies(year: int) -> None:
    before = value("event_end_to_end_seconds_sum", group="g")
    observe_one_event(timestamp=datetime(year, 1, 30, tzinfo=UTC).timestamp(), saved_at=time.time())
    assert value("event_end_to_end_seconds_sum", group="g") == before


def test_within_a_batch_only_sane_latencies_are_measured() -> None:
    def counts() -> tuple[float, float]:
        return (
            value("event_end_to_end_seconds_count", group="g"),
            value("event_end_to_end_unmeasured_total", group="g", reason="old"),
        )

    before = counts()
    events = [
        OrderEventFactory.build(timestamp=datetime.fromtimestamp(seconds, UTC)) for seconds in (0, DAY_S, 2 * DAY_S)
    ]
    observe_latencies(events[:2], group="g", saved_at=2 * DAY_S - 1)
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


def observe_one_event(*, timestamp: float, saved_at: float) -> None:
    """Observe the latencies of one event. Both times are in seconds since 1970."""
    event = OrderEventFactory.build(timestamp=datetime.fromtimestamp(0, UTC) + timedelta(seconds=timestamp))
    observe_latencies([event], group="g", saved_at=saved_at)


def test_a_group_exports_zeros_before_its_first_event() -> None:
    declare(["DECLARED"], group="declared", measures_latency=True)
    declare(["DECLARED"], group="unmeasured", measures_latency=False)
    expected: list[tuple[str, dict[str, str]]] = [
        *(
            ("events_consumed_total", {"event_type": event_type, "outcome": outcome})
            for event_type in ("DECLARED", "OTHER")
            for outcome in ("handled", "duplicate", "ignored", "dead")
        ),
        *(("event_end_to_end_unmeasured_total", {"reason": reason}) for reason in ("old", "future")),
        ("consumer_batch_size_count", {}),
        ("consumer_batch_seconds_count", {}),
        ("event_end_to_end_seconds_count", {}),
    ]
    for name, labels in expected:
        assert REGISTRY.get_sample_value(name, {"group": "declared", **labels}) == 0, name
        assert REGISTRY.get_sample_value(name, {"group": "undeclared", **labels}) is None, name
    assert REGISTRY.get_sample_value("event_end_to_end_seconds_count", {"group": "unmeasured"}) is None


def test_groups_are_counted_apart() -> None:
    event = OrderEventFactory.build(event_type="ORDER_PAID", timestamp=datetime.fromtimestamp(0, UTC))

    def counts(group: str) -> list[float]:
        outcomes = ("handled", "duplicate", "ignored")
        return [value("events_consumed_total", group=group, event_type="ORDER_PAID", outcome=one) for one in outcomes]

    count_consumed(group="apart-1", events=[event] * 3, wanted=[event] * 3, new=[event])
    count_consumed(group="apart-2", events=[event] * 4, wanted=[], new=[])
    observe_latencies([event], group="apart-1", saved_at=7.0)
    observe_latencies([event] * 2, group="apart-2", saved_at=9.0)
    assert (counts("apart-1"), counts("apart-2")) == ([1, 2, 0], [0, 0, 4])
    assert value("event_end_to_end_seconds_sum", group="apart-1") == 7
    assert value("event_end_to_end_seconds_sum", group="apart-2") == 18


@pytest.mark.django_db(transaction=True)
class TestReadings:
    def test_the_outbox_is_read_at_a_scrape(self) -> None:
        OutboxEventFactory.create(recorded_at=now() - timedelta(seconds=90))
        OutboxEventFactory.create()
        OutboxEventFactory.create(published_at=now(), published_partition=0, published_offset=0)
        OutboxEventFactory.create(parked_at=now(), recorded_at=now() - timedelta(days=1))
        gauges = scraped(PipelineCollector(lambda: [member_of("g")]))
        assert gauges["outbox_pending"] == 2
        assert 90 <= gauges["outbox_oldest_pending_seconds"] < 150

    def test_an_empty_outbox_is_zero(self) -> None:
        gauges = scraped(PipelineCollector(lambda: [member_of("g")]))
        assert (gauges["outbox_pending"], gauges["outbox_oldest_pending_seconds"]) == (0, 0)

    def test_lag_equals_the_lag_of_the_command(self, topics: Topics) -> None:
        produce(topics.order_events, b"1", partition=0)
        read_and_commit(topics.order_events, "measured", 1)
        produce(topics.order_events, b"2", partition=0)
        gauges = scraped(PipelineCollector(lambda: [member_of("measured")]))
        first = group_lag(topic=topics.order_events, group="measured")[0]
        topic_labels = f'partition="0",topic="{topics.order_events}"'
        group_labels = f'consumergroup="measured",{topic_labels}'
        assert gauges[f"kafka_consumergroup_lag{{{group_labels}}}"] == first.lag == 1
        assert gauges[f"kafka_consumergroup_current_offset{{{group_labels}}}"] == first.current_offset == 1
        assert gauges[f"kafka_topic_partition_current_offset{{{topic_labels}}}"] == first.end_offset == 2
        assert 0 < gauges[f"kafka_consumergroup_lag_seconds{{{group_labels}}}"] <= (first.seconds_behind or 0)
        # The group has committed no offset on partition 1.
        assert not [name for name in gauges if name.startswith("kafka_consumergroup") and 'partition="1"' in name]

    def test_a_scrape_without_kafka_returns_the_other_gauges(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
        monkeypatch.setattr(readings, "DEFAULT_WAIT_S", 0.2)
        asked = time.monotonic()
        gauges = scraped(PipelineCollector(lambda: [member_of("g")]))
        assert time.monotonic() - asked < 2
        assert gauges == {"outbox_pending": 0, "outbox_oldest_pending_seconds": 0}

    def test_a_hanging_reading_is_attempted_once(self) -> None:
        answer, asked = threading.Event(), []

        def read() -> int:
            asked.append(1)
            answer.wait(10)
            return len(asked)

        reading = readings.Reading("a number", read)
        assert [reading.latest(max_wait_s=0.05) for _ in range(3)] == [None, None, None]
        answer.set()
        assert [reading.latest(max_wait_s=10) for _ in range(3)] == [1, 1, 1]
        assert reading.latest(fresh_s=0, max_wait_s=10) == 2

    def test_published_messages_are_counted_once_by_topic_and_path(self, topics: Topics) -> None:
        relay = Relay(stopping=lambda: False, wait=time.sleep)
        try:
            OutboxEventFactory.create_batch(3, topic=topics.order_events)
            relay.sweep(older_than=timedelta(0))
        finally:
            relay.close()
        assert value("events_published_total", topic=topics.order_events, path="relay") == 3
