"""The body decides which event a dead letter names; headers are for display only."""

import json
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps

from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter
from events.troubles import Poison
from testkit.factories import kafka_record

pytestmark = pytest.mark.django_db

IN_BODY = "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55"
IN_HEADERS = "aaaaaaaa-0c1e-4d6b-9a43-1f3a8a7f7c55"
HEADERS = [("ce_id", IN_HEADERS.encode()), ("ce_type", b"ORDER_CANCELLED")]
COMPLETE: dict[str, Any] = {"eventId": IN_BODY, "eventType": "ORDER_PAID", "orderId": 7}

NAMED_BY_BODY = [
    json.dumps(COMPLETE).encode(),
    json.dumps(COMPLETE | {"eventId": IN_BODY.upper(), "totalAmount": "much"}).encode(),
    json.dumps(COMPLETE | {"userId": None, "note": "x" * 1000}, indent=2).encode(),
]
NOT_NAMED_BY_BODY = [
    None,
    b"",
    b"garbage",
    json.dumps([COMPLETE]).encode(),
    json.dumps(COMPLETE).encode()[:-1],
    json.dumps(COMPLETE).encode()[1:],
    json.dumps(COMPLETE).encode() + b"\xff",
    json.dumps({"data": COMPLETE}).encode(),
    b"[" * 10_000,
    *(json.dumps(COMPLETE | {"orderId": value}).encode() for value in (None, "7", 7.5, True, 2**63, -(2**63) - 1, [7])),
    *(json.dumps(COMPLETE | {"eventType": value}).encode() for value in ("", "A\nB")),
    json.dumps(COMPLETE | {"eventId": "5f0c7a3e"}).encode(),
    *(json.dumps({key: COMPLETE[key] for key in COMPLETE if key != left_out}).encode() for left_out in COMPLETE),
]


def letter_of(value: bytes | None, headers: list[tuple[str, bytes | None]] | None = None) -> DeadLetter:
    record_dead_letter(record=kafka_record(value, headers=headers or []), error=Poison("no event"), group="g")
    return DeadLetter.objects.get()


def named(letter: DeadLetter) -> tuple[UUID | None, str, int | None]:
    return letter.event_id, letter.event_type, letter.subject_id


@pytest.mark.parametrize("headers", [[], HEADERS])
@pytest.mark.parametrize("value", NAMED_BY_BODY)
def test_the_body_names_the_event_whatever_the_headers_say(
    value: bytes, headers: list[tuple[str, bytes | None]]
) -> None:
    assert named(letter_of(value, headers)) == (UUID(IN_BODY), "ORDER_PAID", 7)


@pytest.mark.parametrize("value", NOT_NAMED_BY_BODY)
def test_a_body_without_the_whole_event_names_no_subject(value: bytes | None) -> None:
    letter = letter_of(value, HEADERS)
    assert letter.subject_id is None
    assert letter.event_id in (UUID(IN_BODY), UUID(IN_HEADERS))
    assert letter.event_type in ("ORDER_PAID", "ORDER_CANCELLED")


def as_recorded_by_an_earlier_release(letter: DeadLetter) -> None:
    """Change the letter to what an earlier release recorded: the headers' event id and type, and no subject id."""
    DeadLetter.objects.filter(pk=letter.pk).update(
        event_id=UUID(IN_HEADERS), event_type="ORDER_CANCELLED", subject_id=None
    )


@pytest.mark.parametrize("value", [*NAMED_BY_BODY, *NOT_NAMED_BY_BODY])
def test_the_migration_reads_old_letters_as_new_ones_are_read(value: bytes | None) -> None:
    letter = letter_of(value, HEADERS)
    as_recorded_by_an_earlier_release(letter)
    import_module("events.migrations.0007_subjects_of_dead_letters").read_bodies(apps, None)
    expected = named(letter) if letter.subject_id else (UUID(IN_HEADERS), "ORDER_CANCELLED", None)
    assert named(DeadLetter.objects.get()) == expected


def test_the_migration_reads_any_number_of_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    migration = import_module("events.migrations.0007_subjects_of_dead_letters")
    monkeypatch.setattr(migration, "LETTERS_AT_ONCE", 2)
    for offset in range(5):
        body = json.dumps(COMPLETE | {"orderId": offset}).encode()
        record_dead_letter(record=kafka_record(body, offset=offset), error=Poison("no event"), group="g")
    for letter in DeadLetter.objects.all():
        as_recorded_by_an_earlier_release(letter)
    migration.read_bodies(apps, None)
    assert list(DeadLetter.objects.order_by("pk").values_list("subject_id", flat=True)) == list(range(5))
