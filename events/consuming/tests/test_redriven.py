"""Headers of messages that were sent back from the `-dlt` topic and fail again."""

import struct
from collections import Counter
from typing import Any

import pytest
from django.db import transaction

from conftest import Topics
from events.consuming.dead_letters import record_dead_letter
from events.consuming.redriven import with_spring_headers
from events.consuming.tests.test_dead_letters import copy_on_topic
from events.models import OutboxEvent
from events.troubles import Poison
from events.wire.headers import Header, unpack
from testkit.factories import kafka_record
from testkit.kafka_client import produce, read_topic

POSITION = {
    "kafka_dlt-original-topic": b"order-events",
    "kafka_dlt-original-partition": struct.pack(">i", 2),
    "kafka_dlt-original-offset": struct.pack(">q", 7),
    "kafka_dlt-original-timestamp": struct.pack(">q", 1738232130123),
    "kafka_dlt-original-timestamp-type": b"CreateTime",
}
GROUP = "kafka_dlt-original-consumer-group"
OLD_POSITION = POSITION | {GROUP: b"first-group"}
EXCEPTION = {
    "kafka_dlt-exception-fqcn": b"java.lang.IllegalStateException",
    "kafka_dlt-exception-cause-fqcn": b"java.io.IOException",
    "kafka_dlt-exception-message": b"earlier",
    "kafka_dlt-exception-stacktrace": b"earlier\n\tat Earlier.java",
    "kafka_dlt-key-exception-fqcn": b"java.lang.IllegalStateException",
    "kafka_dlt-key-exception-message": b"earlier",
    "kafka_dlt-key-exception-stacktrace": b"earlier",
}


@transaction.atomic
def copy_headers(reason: str, headers: list[Header], *, group: str = "group", **record: Any) -> list[Header]:
    """Record a dead letter for a record with `headers`. Return the headers of the copy for the `-dlt` topic."""
    value = record.pop("value", b"garbage")
    record_dead_letter(record=kafka_record(value, headers=headers, **record), error=Poison(reason), group=group)
    return unpack(OutboxEvent.objects.latest("pk").headers)


def position(headers: list[Header]) -> dict[str, bytes | None]:
    return {name: value for name, value in headers if name.startswith("kafka_dlt-original-")}


def names_more_than_once(headers: list[Header]) -> list[str]:
    return [name for name, count in Counter(name for name, _ in headers).items() if count > 1]


@pytest.mark.django_db
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_keep_the_first_position_and_the_last_exception(rounds: int) -> None:
    headers = first = copy_headers(
        "failure 0", [("ce_id", b"1"), ("own", b"x")], group="first-group", partition=2, offset=7
    )
    for number in range(1, rounds + 1):
        headers = copy_headers(f"failure {number}", headers, group="group", partition=0, offset=100 + number)
    assert [name for name, _ in headers] == [name for name, _ in first]
    assert position(headers) == position(first) == OLD_POSITION
    assert headers[:2] == [("ce_id", b"1"), ("own", b"x")]
    last = dict(headers)
    assert last["kafka_dlt-exception-message"] == b"failure %d" % rounds
    assert b"failure %d" % rounds in (last["kafka_dlt-exception-stacktrace"] or b"")


@pytest.mark.django_db(transaction=True)
def test_a_copy_sent_back_gets_no_more_headers_on_the_broker(topics: Topics) -> None:
    first = copy_on_topic(topics, partition=1, offset=5)
    produce(topics.order_events, first.value, key=first.key, headers=first.headers, partition=1)
    (redriven,) = read_topic(topics.order_events)
    OutboxEvent.objects.all().delete()
    again = copy_headers(
        "no event", redriven.headers, group="some-group", topic=topics.order_events, partition=1, offset=redriven.offset
    )
    assert [name for name, _ in again] == [name for name, _ in first.headers]
    assert position(again) == position(first.headers)


@pytest.mark.django_db
def test_every_header_of_the_earlier_exception_goes() -> None:
    headers = dict(copy_headers("latest", [*OLD_POSITION.items(), *EXCEPTION.items()]))
    assert {name for name in headers if "exception" in name} == {
        "kafka_dlt-exception-fqcn",
        "kafka_dlt-exception-message",
        "kafka_dlt-exception-stacktrace",
    }
    assert headers["kafka_dlt-exception-fqcn"] == b"events.troubles.Poison"


OWN: list[Header] = [(name, b"own %d" % number) for number, name in enumerate(OLD_POSITION)]


def test_repeated_headers_are_kept_once_with_their_last_value() -> None:
    stale: list[Header] = [(name, b"\0" * len(value)) for name, value in OLD_POSITION.items()]
    headers = with_spring_headers([*stale, *OLD_POSITION.items(), *EXCEPTION.items(), *EXCEPTION.items()], OWN)
    assert headers == list(OLD_POSITION.items())


@pytest.mark.parametrize("name", POSITION)
@pytest.mark.parametrize("value", [None, b"", b"\xff\xff\xff\xff", b"\xff" * 9, "order-events/é".encode()])
def test_an_invalid_position_is_replaced_as_a_whole(name: str, value: bytes | None) -> None:
    headers: list[Header] = [("own", None), *(OLD_POSITION | {name: value}).items()]
    assert with_spring_headers(headers, OWN) == [("own", None), *OWN]


@pytest.mark.parametrize("name", POSITION)
def test_an_incomplete_position_is_replaced_as_a_whole(name: str) -> None:
    headers: list[Header] = [one for one in OLD_POSITION.items() if one[0] != name]
    assert with_spring_headers(headers, OWN) == OWN


@pytest.mark.parametrize("group", [[], [(GROUP, None)], [(GROUP, b"")]])
def test_a_position_without_a_group_gets_the_own_group(group: list[Header]) -> None:
    headers = dict(with_spring_headers([*POSITION.items(), *group], OWN))
    assert headers == POSITION | {GROUP: dict(OWN)[GROUP]}


def test_headers_that_spring_does_not_write_stay() -> None:
    others: list[Header] = [
        ("kafka_dlt-original-flavour", b"1"),
        ("kafka_dlt-exception", b"2"),
        ("kafka_exception-message", b"3"),
        ("kafka_dlt-original-flavour", None),
    ]
    assert with_spring_headers(others, OWN) == [*others, *OWN]


@pytest.mark.django_db
def test_nulls_that_stay_null_are_named_once() -> None:
    headers: list[Header] = []
    for number in range(3):
        headers = copy_headers("no event", headers, value=None, key=None, offset=number)
    assert names_more_than_once(headers) == []
    assert dict(headers)["dead-letter-nulls"] == b"value"
