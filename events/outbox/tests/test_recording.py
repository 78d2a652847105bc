"""The outbox stores every field of a message unchanged."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.outbox import recording as outbox
from events.troubles import Poison
from events.wire.messages import Message
from testkit.factories import kafka_record

pytestmark = pytest.mark.django_db

MINIMAL = Message(
    event_id=UUID("5f0c7a3e-0000-4000-8000-000000000001"),
    event_type="ORDER_PAID",
    topic="a-topic",
    key=b"\x00key",
    value=b"\xffvalue",
    headers=b"\x90",
    created_at=datetime(2025, 1, 30, 10, 15, 30, 123000, tzinfo=UTC),
)


def replay_of(letter: DeadLetter) -> Message:
    """Return a message that replays `letter`, with a value in every field."""
    return MINIMAL._replace(partition=2, stream="order-7", sequence=3, dead_letter_id=letter.pk)


@pytest.fixture
def letter() -> DeadLetter:
    record_dead_letter(record=kafka_record(b"garbage"), error=Poison("no event"), group="g")
    OutboxEvent.objects.all().delete()
    return DeadLetter.objects.get()


def test_every_field_of_a_message_comes_back(letter: DeadLetter) -> None:
    full = replay_of(letter)
    assert None not in full
    outbox.record(full)
    row = OutboxEvent.objects.get()
    assert row.message == full
    assert {name: getattr(row, name) for name in ("partition", "sequence", "dead_letter_id", "event_type")} == {
        "partition": 2,
        "sequence": 3,
        "dead_letter_id": letter.pk,
        "event_type": "ORDER_PAID",
    }


@pytest.mark.parametrize("changes", [{}, {"key": None}, {"value": None}, {"key": b"", "value": b""}])
def test_null_and_empty_bytes_stay_what_they_are(changes: dict[str, Any]) -> None:
    outbox.record(MINIMAL._replace(**changes))
    assert OutboxEvent.objects.get().message == MINIMAL._replace(**changes)


def test_every_field_of_a_message_is_a_column() -> None:
    assert set(Message._fields) <= {field.attname for field in OutboxEvent._meta.concrete_fields}


def test_the_statement_names_every_column_that_has_no_default() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT column_name FROM information_schema.columns
            WHERE table_name = 'events_outboxevent' AND is_nullable = 'NO' AND column_default IS NULL
              AND is_identity = 'NO'
            """
        )
        required = {name for (name,) in cursor}
    assert required <= {*Message._fields, "parked_reason"}
