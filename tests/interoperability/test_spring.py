"""A service on Spring Kafka reads the product's events and dead letters, and the product reads Spring's."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from conftest import Topics
from events.models import DeadLetter
from notifications.models import Notification
from testkit.kafka_client import produce, read_topic
from tests.interoperability.conftest import Consume
from tests.interoperability.spring import SpringService


def in_order(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(events, key=lambda event: int(event["orderId"]))


@pytest.mark.parametrize("jackson", ["jackson2", "jackson3"])
def test_spring_reads_our_events_into_a_class_of_its_own(
    spring: SpringService, topics: Topics, placed: list[dict[str, Any]], jackson: str
) -> None:
    read = in_order(spring.do(f"read-{jackson}", topics.order_events))
    # Java omits milliseconds of 0.
    for event in read:
        event["timestamp"] = event["timestamp"] if "." in event["timestamp"] else event["timestamp"][:-1] + ".000Z"
    expected = [{name: str(value) for name, value in event.items()} for event in placed]
    assert [event["totalAmount"] for event in expected] == [
        *("0.00", "100000.00", "25000000000.00", "9999999999990000.00"),
    ]
    assert read == expected


@pytest.mark.parametrize(("jackson", "timestamp"), [("jackson2", b'"timestamp":1'), ("jackson3", b'"timestamp":"2')])
def test_springs_events_become_notifications(
    spring: SpringService, topics: Topics, consume: Consume, jackson: str, timestamp: bytes
) -> None:
    """Spring's JSON library writes times as seconds in its version 2 (Jackson 2), and as text in version 3."""
    amounts = ["1.50", "50000", "1E+3", "9999999999990000.01"]
    sent = [
        spring.do(f"send-{jackson}", topics.order_events, "ORDER_PAID", 2**62 + number, 7, amount)
        for number, amount in enumerate(amounts)
    ]
    assert all(timestamp in message.value for message in read_topic(topics.order_events))
    consume()
    notifications = Notification.objects.order_by("order_id")
    assert [one.event_id for one in notifications] == [UUID(event["eventId"]) for event in sent]
    assert [(one.order_id, one.user_id, one.message) for one in notifications] == [
        (2**62 + number, 7, f"결제가 완료되었습니다. 주문번호: {2**62 + number}, 금액: {Decimal(amount):.2f}원")
        for number, amount in enumerate(amounts)
    ]


def test_spring_reads_where_a_dead_letter_comes_from_and_why(
    spring: SpringService, topics: Topics, consume: Consume
) -> None:
    produce(topics.order_events, b"garbage", partition=2)
    produce(topics.order_events, b"more garbage", partition=2)
    consume()
    letters = DeadLetter.objects.order_by("offset")
    read = spring.do("read-dead-letters", topics.dead_letters)
    assert [one["kafka_dlt-original-offset"] for one in read] == [0, 1]
    for one, letter in zip(read, letters, strict=True):
        assert letter.stacktrace.startswith(one.pop("kafka_dlt-exception-stacktrace"))
        assert one == {
            "kafka_dlt-original-topic": topics.order_events,
            "kafka_dlt-original-partition": 2,
            "kafka_dlt-original-offset": letter.offset,
            "kafka_dlt-original-timestamp": letter.timestamp,
            "kafka_dlt-original-timestamp-type": "CREATE_TIME",
            "kafka_dlt-original-consumer-group": topics.order_events,
            "kafka_dlt-exception-fqcn": "events.troubles.Poison",
            "kafka_dlt-exception-message": letter.error_message,
        }


def test_our_dead_letters_are_written_as_springs_own(spring: SpringService, topics: Topics, consume: Consume) -> None:
    for value in (b"garbage", b"more garbage"):
        produce(topics.order_events, value, key=b"k", partition=1, headers=[("h", b"\xff")])
    consume()
    assert spring.do("dead-letter", topics.order_events, topics.notification_events, topics.order_events) == 2
    # Compare the second letter, because the first one's offset 0 is the same in every encoding.
    _, ours = read_topic(topics.dead_letters)
    _, springs = read_topic(topics.notification_events)
    assert (ours.partition, ours.key, ours.value) == (springs.partition, springs.key, springs.value)
    assert ours.header["h"] == springs.header["h"]
    # Spring adds this header if one exception wraps another.
    assert set(springs.header) - set(ours.header) == {"kafka_dlt-exception-cause-fqcn"}
    assert set(ours.header) <= set(springs.header)
    origin = {name for name in ours.header if name.startswith("kafka_dlt-original-")}
    assert len(origin) == 6
    assert {name: ours.header[name] for name in origin} == {name: springs.header[name] for name in origin}
