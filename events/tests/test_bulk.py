"""Writing many rows with one statement."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from events.bulk import insert_rows, update_rows
from events.models import DeathMark, OutboxEvent
from testkit.factories import OutboxEventFactory

pytestmark = pytest.mark.django_db


def test_rows_are_written_with_one_statement() -> None:
    rows = OutboxEventFactory.create_batch(3)
    untouched = OutboxEventFactory.create()
    for number, row in enumerate(rows):
        row.parked_reason, row.published_offset, row.topic = f"reason {number}", number, "changed, but not named"
    with CaptureQueriesContext(connection) as queries:
        update_rows(rows, ["parked_reason", "published_offset"])
    assert len(queries) == 1
    stored = OutboxEvent.objects.in_bulk([row.pk for row in rows])
    assert [stored[row.pk].parked_reason for row in rows] == ["reason 0", "reason 1", "reason 2"]
    assert [stored[row.pk].published_offset for row in rows] == [0, 1, 2]
    assert {row.topic for row in stored.values()} == {untouched.topic}
    assert OutboxEvent.objects.get(pk=untouched.pk).parked_reason == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_id", uuid4()),
        ("parked_reason", "따옴표 \" ' \\ % %s \n \U0001f6d2"),
        ("published_at", datetime(2026, 11, 28, 12, 30, 15, 123456, tzinfo=UTC)),
        ("published_at", None),
        ("published_offset", 2**63 - 1),
        ("value", b""),
        ("value", bytes(range(256))),
        ("value", None),
    ],
)
def test_a_value_is_read_as_it_was_written(field: str, value: object) -> None:
    row = OutboxEventFactory.create()
    setattr(row, field, value)
    for _ in range(2):
        update_rows([row], [field])
        # The second time, it writes the value as it was read: bytes as a memoryview.
        setattr(row, field, getattr(OutboxEvent.objects.get(pk=row.pk), field))
        stored = getattr(row, field)
        assert (bytes(stored) if isinstance(stored, memoryview) else stored) == value


def test_no_rows_need_no_statement() -> None:
    with CaptureQueriesContext(connection) as queries:
        update_rows([], ["parked_reason"])
    assert not queries.captured_queries


def test_a_text_that_the_database_cannot_store_is_refused() -> None:
    row = OutboxEventFactory.create()
    row.parked_reason = "a NUL \x00"
    with pytest.raises(DatabaseError), transaction.atomic():
        update_rows([row], ["parked_reason"])


def test_rows_are_inserted_with_one_statement() -> None:
    marks = [DeathMark(group="g", topic='주문 " %s', partition=number, last_offset=2**62) for number in range(3)]
    with CaptureQueriesContext(connection) as queries:
        insert_rows(marks)
    assert len(queries) == 1
    stored = DeathMark.objects.order_by("partition")
    assert [(one.partition, one.last_offset, one.topic) for one in stored] == [
        (number, 2**62, '주문 " %s') for number in range(3)
    ]


def test_rows_in_conflict_are_left_out_and_not_counted() -> None:
    marks = [DeathMark(group="g", topic="t", partition=number, last_offset=1) for number in range(3)]
    assert insert_rows(marks[:1]) == 1
    assert insert_rows(marks, ignore_conflicts=True) == 2
    assert insert_rows(marks, ignore_conflicts=True) == 0
    assert DeathMark.objects.count() == 3


def test_rows_must_lack_the_same_generated_values() -> None:
    marks = [DeathMark(pk=pk, group="g", topic="t", partition=0, last_offset=1) for pk in (None, 7)]
    with pytest.raises(ValueError, match="Only some of these rows have a value for id"):
        insert_rows(marks)


def test_rows_that_exist_get_only_the_named_fields() -> None:
    old = DeathMark.objects.create(group="g", topic="t", partition=0, last_offset=1, deaths=1)
    rows = [DeathMark(pk=old.pk + n, group="g", topic="t", partition=n, last_offset=9, deaths=9) for n in range(2)]
    insert_rows(rows, update=["last_offset"])
    stored = DeathMark.objects.order_by("pk")
    assert [(one.pk, one.last_offset, one.deaths) for one in stored] == [(old.pk, 9, 1), (old.pk + 1, 9, 9)]
