"""No message on a topic exhausts the memory or the time of a process, even if it grows a lot by decompression."""

import os
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from events.kafka.cluster import Viewer
from events.kafka.lag import group_lag
from orders.events import OrderEvent, encode
from testkit import servers
from testkit.database import rows, value
from testkit.foreign_events import all_notified_once, foreign_events, open_dead_letters
from testkit.kafka_client import Outgoing, produce_all
from testkit.processes import ProductProcess
from testkit.servers import Broker
from testkit.waiting import wait_until

LIMIT_MIB = 256
"""Limit of the resident memory of the consumer, and of the relay, at any time, in MiB. Each process has this limit."""
MIB = 1024 * 1024
BOMB = bytes(150 * MIB)
SNAPPY_BOMB = bytes(18 * MIB)
"""Value that snappy compresses to a twentieth, so that it fits into the 1 MiB that a topic accepts."""
CODECS = ("gzip", "lz4", "zstd", "snappy")


class Pipeline(NamedTuple):
    """A running consumer and a running relay, on a topic for a single test."""

    topic: str
    consumer: ProductProcess
    relay: ProductProcess

    def lag(self) -> int | None:
        known = group_lag(topic=self.topic, group=self.topic)
        return sum(partition.lag or 0 for partition in known)


@pytest.fixture
def pipeline(broker: Broker, site_database: None, tmp_path: Path) -> Iterator[Pipeline]:
    topic = f"order-events-{uuid4().hex[:8]}"
    for name in (topic, f"{topic}-dlt"):
        broker.create_topic(name, partitions=servers.PARTITIONS)
    env = {"DJANGO_SETTINGS_MODULE": "testkit.own_topic_settings", "OWN_TOPIC": topic}
    pipeline = Pipeline(
        topic,
        ProductProcess("django", "consume_order_events", "--group", topic, log=tmp_path / "consumer.log", env=env),
        ProductProcess("django", "relay_outbox", log=tmp_path / "relay.log", env=env),
    )
    yield pipeline
    for process in (pipeline.consumer, pipeline.relay):
        process.kill()
        print(process.log.read_text()[-5_000:])


def send_batch(topic: str, values: list[bytes], *, codec: str, partition: int = 0) -> None:
    """Send all of `values` in one record batch, and let librdkafka compress it, as many programs do."""
    producer = Producer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "compression.type": codec,
            "message.max.bytes": 400 * MIB,
            "batch.size": 400 * MIB,
            "queue.buffering.max.kbytes": 400 * 1024,
            "linger.ms": 500 if len(values) > 1 else 0,
        }
    )
    errors = []
    for one in values:
        producer.produce(topic, one, partition=partition, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(60) == 0
    assert errors == [None] * len(values)


def send(topic: str, events: list[OrderEvent], *, partition: int = 0) -> None:
    produce_all(topic, [Outgoing(encode(event), partition=partition) for event in events])


def peak_mib(process: ProductProcess) -> int:
    """Return the peak of the process's resident memory in MiB."""
    assert process.process.poll() is None, process.log.read_text()
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def check_memory(pipeline: Pipeline) -> None:
    peaks = (peak_mib(pipeline.consumer), peak_mib(pipeline.relay))
    print("peaks in MiB:", peaks)
    assert max(peaks) < LIMIT_MIB


def check_end(pipeline: Pipeline) -> None:
    wait_until(lambda: pipeline.lag() == 0)
    dead_letters = f"{pipeline.topic}-dlt"
    left = "SELECT count(*) FROM events_outboxevent WHERE topic = %(topic)s AND published_at IS NULL"
    wait_until(lambda: value(left, topic=dead_letters) == 0)
    check_memory(pipeline)


def test_a_bomb_of_each_codec_is_a_letter_and_reading_goes_on(pipeline: Pipeline) -> None:
    for number, codec in enumerate(CODECS, 1):
        send_batch(pipeline.topic, [SNAPPY_BOMB if codec == "snappy" else BOMB], codec=codec)
        events = foreign_events(3)
        send(pipeline.topic, events)
        wait_until(partial(all_notified_once, events))
        letter = open_dead_letters(group=pipeline.topic)[-1]
        assert len(open_dead_letters(group=pipeline.topic)) == number
        assert (letter.offset, letter.key, letter.value, letter.is_readable) == (4 * number - 4, None, None, False)
        said = "18874" if codec == "snappy" else f"bytes of {codec}, cannot be decompressed: more than 33554432 bytes"
        assert said in letter.error_message
    check_end(pipeline)


def test_bombs_in_a_row_in_all_partitions_hold_up_nothing(pipeline: Pipeline) -> None:
    pipeline.consumer.stop()
    events = foreign_events(30)
    for number in range(48):
        codec = CODECS[number // servers.PARTITIONS % len(CODECS)]
        bomb = SNAPPY_BOMB if codec == "snappy" else bytes(40 * MIB)
        send_batch(pipeline.topic, [bomb], codec=codec, partition=number % servers.PARTITIONS)
    for partition in range(servers.PARTITIONS):
        send(pipeline.topic, events[partition :: servers.PARTITIONS], partition=partition)
    pipeline.consumer.start()
    wait_until(lambda: all_notified_once(events))
    assert len(open_dead_letters(group=pipeline.topic)) == 48
    check_end(pipeline)


def test_batches_below_the_bound_do_not_add_up(pipeline: Pipeline) -> None:
    pipeline.consumer.stop()
    events = foreign_events(30)
    for partition in range(servers.PARTITIONS):
        for codec in CODECS:
            size = MIB if codec == "snappy" else 2_000_000
            send_batch(pipeline.topic, [bytes(size)] * 15, codec=codec, partition=partition)
        send(pipeline.topic, events[partition :: servers.PARTITIONS], partition=partition)
    pipeline.consumer.start()
    wait_until(lambda: all_notified_once(events))
    sizes = 'SELECT count(*), min(length(value)) FROM events_deadletter WHERE "group" = %(topic)s AND is_readable'
    assert rows(sizes, topic=pipeline.topic) == [(15 * len(CODECS) * servers.PARTITIONS, MIB)]
    check_end(pipeline)


def test_a_look_at_the_lag_holds_one_batch_at_a_time(broker: Broker) -> None:
    """To compute the lag in seconds, a process reads the first unread record of each partition.

    Kafka sends the whole batch of such a record. The process must not hold the batches of all partitions at once.
    """
    topic = f"order-events-{uuid4().hex[:8]}"
    broker.create_topic(topic, partitions=servers.PARTITIONS)
    for partition in range(servers.PARTITIONS):
        send_batch(topic, [bytes(2_000_000)] * 15, codec="zstd", partition=partition)
    viewer = Viewer(group=topic)
    tracemalloc.start()
    try:
        positions = dict.fromkeys(range(servers.PARTITIONS), 0)
        assert viewer.timestamps(topic, positions, timeout=30).keys() == positions.keys()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        viewer.close()
    assert peak < 2 * 30_000_000 + 10 * MIB


def test_large_rows_of_an_older_version_are_parked_unread(pipeline: Pipeline) -> None:
    inserted = """
        INSERT INTO events_outboxevent (event_id, event_type, topic, {column}headers, created_at, parked_reason)
        SELECT gen_random_uuid(), 'DEAD_LETTER', %(topic)s, {large}, now(), '' FROM generate_series(1, 3)
        """
    large = f"convert_to(repeat('x', {150 * MIB}), 'UTF8')"
    topic = f"{pipeline.topic}-dlt"
    for column in ("key", "value"):
        rows(inserted.format(column=f"{column}, ", large=f"{large}, '\\x90'"), topic=topic)
    rows(inserted.format(column="", large=large), topic=topic)
    rows(inserted.format(column="value, ", large=r"'small', '\x90'"), topic=topic)
    states = """
        SELECT parked_at IS NOT NULL, published_at IS NOT NULL, substring(parked_reason FOR 24), count(*)
        FROM events_outboxevent WHERE topic = %(topic)s GROUP BY 1, 2, 3 ORDER BY 1
        """
    expected = [
        (False, True, "", 3),
        (True, False, "Its 157286401 bytes are ", 6),
        (True, False, "Its 157286400 bytes are ", 3),
    ]
    wait_until(lambda: sorted(rows(states, topic=topic)) == sorted(expected))
    check_memory(pipeline)
