import struct
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from conftest import Topics
from events.consuming.dead_letters import record_dead_letter
from events.kafka import Record
from events.models import DeadLetter
from events.outbox.relay import Relay
from events.troubles import Poison
from events.wire.headers import unpack
from testkit.factories import kafka_record
from testkit.kafka_client import Message, read_topic


def copy_on_topic(topics: Topics, **record: Any) -> Message:
    """Make a record a dead letter, and return its copy from the `-dlt` topic."""
    with transaction.atomic():
        record_dead_letter(
            record=kafka_record(record.pop("value", b"garbage"), topic=topics.order_events, **record),
            error=Poison("no event"),
            group="some-group",
        )
    relay = Relay(stopping=lambda: False, wait=time.sleep)
    try:
        assert relay.sweep(older_than=timedelta(0)) == (1, None)
    finally:
        relay.close()
    (message,) = read_topic(topics.dead_letters)
    return message


@pytest.mark.django_db(transaction=True)
def test_the_copy_is_the_message_plus_springs_headers(topics: Topics) -> None:
    headers = [("a", b"\xff\x00"), ("a", b"2"), ("traceparent", b"00-x")]
    message = copy_on_topic(
        topics, value=b"\x00garbage\xff", key=b"\xfe", headers=headers, partition=2, offset=7, timestamp=1738232130123
    )
    assert message.partition == 2
    assert (message.key, message.value) == (b"\xfe", b"\x00garbage\xff")
    assert message.headers[:3] == headers
    added = dict(message.headers[3:])
    stacktrace = added.pop("kafka_dlt-exception-stacktrace") or b""
    assert b"Poison" in stacktrace
    assert len(stacktrace) <= 8 * 1024
    assert added == {
        "kafka_dlt-original-topic": topics.order_events.encode(),
        "kafka_dlt-original-partition": struct.pack(">i", 2),
        "kafka_dlt-original-offset": struct.pack(">q", 7),
        "kafka_dlt-original-timestamp": struct.pack(">q", 1738232130123),
        "kafka_dlt-original-timestamp-type": b"CreateTime",
        "kafka_dlt-original-consumer-group": b"some-group",
        "kafka_dlt-exception-fqcn": b"events.troubles.Poison",
        "kafka_dlt-exception-message": b"no event",
    }


@pytest.mark.django_db(transaction=True)
def test_a_null_value_with_a_key_stays_null(topics: Topics) -> None:
    message = copy_on_topic(topics, value=None, key=b"k")
    assert message.value is None
    assert "dead-letter-nulls" not in message.header


@pytest.mark.django_db(transaction=True)
def test_nulls_that_the_client_cannot_send_are_listed(topics: Topics) -> None:
    message = copy_on_topic(topics, value=None, key=None, headers=[("h", None)])
    assert (message.key, message.value, message.header["h"]) == (None, b"", b"")
    assert message.header["dead-letter-nulls"] == b"header h, value"


@pytest.mark.django_db(transaction=True)
def test_a_value_of_a_mebibyte_fits(topics: Topics, settings: Any) -> None:
    assert len(copy_on_topic(topics, value=b"x" * 1024 * 1024).value or b"") == 1024 * 1024


@pytest.mark.django_db
def test_characters_that_text_cannot_hold_are_escaped() -> None:
    record_dead_letter(
        record=kafka_record(b"\0", headers=[("h", None)]), error=ValueError("nul \0 and \ud800"), group="g"
    )
    letter = DeadLetter.objects.get()
    assert letter.error_message == "nul \\0 and \\ud800"
    assert unpack(letter.headers) == [("h", None)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("value", "headers", "named"),
    [
        (b'{"eventId":"5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55"}', [], True),
        (b"garbage", [("ce_id", b"5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55")], True),
        (b"garbage", [("ce_id", b"\xff")], False),
        (b'{"eventId":5}', [("ce_id", None)], False),
        (b"[]", [], False),
    ],
)
def test_a_dead_letter_knows_the_event_its_message_names(
    value: bytes, headers: list[tuple[str, bytes | None]], named: bool
) -> None:
    record_dead_letter(record=kafka_record(value, headers=headers), error=Poison("no event"), group="g")
    assert (DeadLetter.objects.get().event_id is not None) is named


@pytest.mark.django_db
@pytest.mark.parametrize(("state", "group", "is_new"), [("dismissed", "g", False), ("open", "another", True)])
def test_a_failed_replay_reopens_no_dismissed_or_foreign_letter(state: str, group: str, is_new: bool) -> None:
    with transaction.atomic():
        record_dead_letter(record=kafka_record(b"garbage"), error=Poison("first"), group="g")
        letter = DeadLetter.objects.get()
        DeadLetter.objects.update(state=state)
        replayed = kafka_record(b"garbage", offset=9, headers=[("dead-letter-id", b"%d" % letter.pk)])
        result = record_dead_letter(record=replayed, error=Poison("again"), group=group)
    assert result.is_new_or_reopened is is_new
    letter.refresh_from_db()
    assert (letter.state, letter.error_message) == (state, "first")


def failed(record: Record, group: str) -> bool:
    """Record the failure of `record` in `group`. Return whether that created or reopened a dead letter."""
    return record_dead_letter(record=record, error=Poison("bad"), group=group).is_new_or_reopened


def naming(letter_id: int, *, offset: int) -> Record:
    """Return a record whose header claims that it replays this dead letter."""
    return kafka_record(b"garbage", offset=offset, headers=[("dead-letter-id", str(letter_id).encode())])


@pytest.mark.django_db
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_header_hides_no_message_of_another_group(ahead: int) -> None:
    """A record that `second` cannot handle becomes its dead letter, even if a header names a dead letter of `first`.

    With `ahead` 0, the header names an older letter. With `ahead` 1, it names the letter that `first` makes of this
    record.
    """
    assert failed(kafka_record(b"garbage", offset=1), "first")
    record = naming(DeadLetter.objects.latest("pk").pk + ahead, offset=2)
    failed(record, "first")
    assert failed(record, "second")
    assert not failed(record, "second")


@pytest.mark.django_db
def test_a_replay_for_one_group_is_no_news_to_another() -> None:
    original = kafka_record(b"garbage", offset=1)
    assert failed(original, "first")
    first = DeadLetter.objects.get()
    assert failed(original, "second")
    assert not failed(naming(first.pk, offset=2), "second")
    assert DeadLetter.objects.count() == 2
