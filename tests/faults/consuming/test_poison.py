"""Messages that a consumer cannot handle: each becomes a dead letter, and its neighbours are saved."""

import os
import struct
import time
from typing import NamedTuple

import pytest
from kafka import KafkaProducer

from orders.events import encode
from testkit.database import pending
from testkit.foreign_events import (
    DEAD_LETTERS,
    TOPIC,
    all_notified_once,
    foreign_event,
    foreign_events,
    last_dead_letter_id,
    notification_counts,
    open_dead_letters,
    send,
)
from testkit.kafka_client import Message, Outgoing, produce_all, read_topic
from testkit.proxy import Proxy
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, OwnTopic, Site, Start
from tests.faults.groups import GROUP
from tests.faults.oracle import Oracle
from tests.faults.troubled_database import constraint, on_notification

PARTITION, UNREADABLE_OFFSET = 1, 10


class Kind(NamedTuple):
    """A kind of poison, and the expected content of its dead letter."""

    value: bytes | None
    reason: str
    key: bytes | None = b"7"
    headers: tuple[tuple[str, bytes | None], ...] = ()
    nulls: bytes | None = None
    """The expected header `dead-letter-nulls` of the copy on the `-dlt` topic; None if the copy must not have it.

    The header names the parts that are null in the original and empty in the copy.
    """


SOUND = encode(foreign_event())
POISON = [
    Kind(b"not JSON", "Not an order event: JSON is malformed: invalid character (byte 4)"),
    Kind(b'{"eventId": "\xff"}', "Not UTF-8: 'utf-8' codec can't decode byte 0xff in position 13: invalid start byte"),
    Kind(SOUND.replace(b'"userId"', b'"user"'), "Not an order event: Object missing required field `userId`"),
    Kind(
        SOUND.replace(b'"orderId":', b'"orderId":"1","a":'),
        "Not an order event: Expected `int`, got `str` - at `$.orderId`",
    ),
    Kind(
        SOUND.replace(b"ORDER_CREATED", b"ORDER_LOST"),
        "Not an order event: Invalid enum value 'ORDER_LOST' - at `$.eventType`",
    ),
    Kind(None, "The value is null"),
    Kind(None, "The value is null", key=None, nulls=b"value"),
    Kind(b"", "Not an order event: Input data was truncated"),
    Kind(b"x" * 2**20, "Not an order event: JSON is malformed: invalid character (byte 0)"),
    Kind(
        b"{", "Not an order event: Input data was truncated", headers=(("a", b"\xff"), ("b", None)), nulls=b"header b"
    ),
]


class NotUTF8(str):
    """A header's name that kafka-python sends as bytes that are not UTF-8."""

    def encode(self, *args: str) -> bytes:
        return b"\xff\xfe"


Position = tuple[int, int]


def copies(topic: str = DEAD_LETTERS) -> dict[Position, Message]:
    """Return the copies of dead letters on the `-dlt` topic, by partition and offset of the original messages."""
    by_position: dict[Position, Message] = {}
    for message in read_topic(topic):
        (partition,) = struct.unpack(">i", message.header["kafka_dlt-original-partition"] or b"")
        (offset,) = struct.unpack(">q", message.header["kafka_dlt-original-offset"] or b"")
        by_position[partition, offset] = message
    return by_position


def check_copy(copy: Message, original: Message, kind: Kind) -> None:
    """Check that the copy has the original's key, value and headers, followed by Spring's headers."""
    assert (copy.partition, copy.key) == (original.partition, original.key)
    assert copy.value == (b"" if kind.value is None and kind.key is None else kind.value)
    own = len(kind.headers)
    assert copy.headers[:own] == [(name, value or b"") for name, value in kind.headers]
    added = dict(copy.headers[own:])
    assert len(added.pop("kafka_dlt-exception-stacktrace") or b"") in range(100, 8 * 1024 + 1)
    (timestamp,) = struct.unpack(">q", added.pop("kafka_dlt-original-timestamp") or b"")
    assert 0 < time.time() * 1000 - timestamp < 120_000
    assert added.pop("dead-letter-nulls", None) == kind.nulls
    assert added == {
        "kafka_dlt-original-topic": TOPIC.encode(),
        "kafka_dlt-original-partition": struct.pack(">i", original.partition),
        "kafka_dlt-original-offset": struct.pack(">q", original.offset),
        "kafka_dlt-original-timestamp-type": b"CreateTime",
        "kafka_dlt-original-consumer-group": GROUP.encode(),
        "kafka_dlt-exception-fqcn": b"events.troubles.Poison",
        "kafka_dlt-exception-message": kind.reason.encode(),
    }


def test_every_kind_of_poison_becomes_one_dead_letter(site: Site, oracle: Oracle) -> None:
    """Each dead letter names its true reason, and the neighbours of the poison are saved."""
    last_id = last_dead_letter_id()
    site.consumer.stop()
    oracle.place_orders(site.web.url, 8)
    wait_until(lambda: pending() == 0)
    neighbours = foreign_events(len(POISON) + 1)
    batch = [Outgoing(encode(neighbours[0]), partition=PARTITION)]
    for kind, neighbour in zip(POISON, neighbours[1:], strict=True):
        batch.append(Outgoing(kind.value, kind.key, kind.headers, PARTITION))
        batch.append(Outgoing(encode(neighbour), partition=PARTITION))
    produce_all(TOPIC, batch)
    site.consumer.start()
    oracle.settle_and_compare()

    assert all_notified_once(neighbours)
    originals = [one for one in read_topic(TOPIC) if one.partition == PARTITION][-len(batch) :][1::2]
    assert [
        (one.partition, one.offset, one.error_message, one.key, one.value) for one in open_dead_letters(after=last_id)
    ] == [
        (PARTITION, original.offset, kind.reason, kind.key, kind.value)
        for original, kind in zip(originals, POISON, strict=True)
    ]
    copied = copies()
    for original, kind in zip(originals, POISON, strict=True):
        check_copy(copied[original.partition, original.offset], original, kind)
    assert site.consumer.process.poll() is None


def test_an_unreadable_record_becomes_a_dead_letter(own_topic: OwnTopic, start: Start) -> None:
    """The dead letter has the record's position only, and the consumer reads on."""
    neighbours = foreign_events(20)
    producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], linger_ms=1_000)
    for number, event in enumerate(neighbours):
        headers = [(NotUTF8("name"), b"value")] if number == UNREADABLE_OFFSET else []
        producer.send(own_topic.name, encode(event), partition=PARTITION, headers=headers)
    producer.flush()
    producer.close()
    unreadable = neighbours.pop(UNREADABLE_OFFSET)
    consumer = start(*CONSUME, "--group", own_topic.name, **own_topic.env)
    wait_until(lambda: all_notified_once(neighbours))
    assert notification_counts([unreadable]) == [0]

    (letter,) = open_dead_letters(group=own_topic.name)
    assert (letter.partition, letter.offset) == (PARTITION, UNREADABLE_OFFSET)
    assert (letter.key, letter.value, letter.is_readable) == (None, None, False)
    assert "utf-8" in letter.error_message
    (copy,) = wait_until(lambda: list(copies(own_topic.dead_letters).values()))
    assert (copy.partition, copy.key, copy.header["dead-letter-nulls"]) == (PARTITION, None, b"value")

    later = foreign_events(3)
    send(later, topic=own_topic.name, partition=PARTITION)
    wait_until(lambda: all_notified_once(later))
    assert consumer.stop() == 0, consumer.log.read_text()


def test_records_damaged_in_transit_are_read_again(site: Site, proxy: Proxy, oracle: Oracle) -> None:
    last_id = last_dead_letter_id()
    oracle.place_orders(site.web.url, 8)
    oracle.settle_and_compare()
    events = foreign_events(20)
    proxy.corrupt_answer(containing=str(events[10].event_id).encode())
    send(events)
    wait_until(lambda: proxy.corrupted)
    oracle.place_orders(site.web.url, 8)
    oracle.settle_and_compare()
    assert all_notified_once(events)
    assert open_dead_letters(after=last_id) == []


@pytest.mark.parametrize("refusal", ["a check constraint", "an error of data"])
def test_only_the_event_that_the_database_refuses_is_set_aside(refusal: str, site: Site, oracle: Oracle) -> None:
    """Only the refused event becomes a dead letter. The other events of its batch are saved."""
    last_id = last_dead_letter_id()
    site.consumer.stop()
    oracle.place_orders(site.web.url, 8)
    events = foreign_events(20)
    refused = events.pop(10)
    send([*events[:10], refused, *events[10:]])
    trouble = {
        "a check constraint": constraint(f"order_id <> {refused.order_id}"),
        "an error of data": on_notification(
            f"IF NEW.order_id = {refused.order_id} THEN"
            " RAISE EXCEPTION 'sabotage' USING ERRCODE = 'numeric_value_out_of_range'; END IF;"
        ),
    }
    with trouble[refusal]:
        site.consumer.start()
        oracle.settle_and_compare()
    assert all_notified_once(events)
    (letter,) = open_dead_letters(after=last_id)
    assert letter.value == encode(refused)
    assert "sabotage" in letter.error_message
