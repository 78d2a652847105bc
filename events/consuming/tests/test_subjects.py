"""Dead letters that an earlier release recorded get the subject id (the order) that their bodies name."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from events.consuming.dead_letters import record_dead_letter
from events.consuming.subjects import complete_subjects
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter
from events.troubles import Poison
from testkit.factories import kafka_record

pytestmark = pytest.mark.django_db

EVENT_ID = UUID("5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55")
OTHER_ID = UUID("aaaaaaaa-0c1e-4d6b-9a43-1f3a8a7f7c55")
BODY = {"eventId": str(EVENT_ID), "eventType": "ORDER_PAID", "orderId": 7}


def as_an_earlier_release_recorded(body: bytes, **letter: Any) -> DeadLetter:
    """Record a letter as an earlier release did: without a subject, and with the id and type that the headers named."""
    offset = DeadLetter.objects.count()
    record_dead_letter(record=kafka_record(body, offset=offset), error=Poison("no event"), group="g")
    newest = DeadLetter.objects.order_by("-pk")[:1].get()
    named = {"event_id": EVENT_ID, "event_type": "ORDER_PAID"} | letter
    DeadLetter.objects.filter(pk=newest.pk).update(subject_id=None, **named)
    return newest


def named(letter: DeadLetter) -> tuple[UUID | None, str, int | None]:
    letter.refresh_from_db()
    return letter.event_id, letter.event_type, letter.subject_id


@pytest.mark.parametrize(
    ("body", "before"),
    [
        (json.dumps(BODY).encode(), {}),
        (json.dumps(BODY).encode(), {"event_id": OTHER_ID}),
        (json.dumps(BODY).encode(), {"event_type": ""}),
        (json.dumps(BODY | {"totalAmount": "x" * 100_000}).encode(), {}),
        (json.dumps(BODY).encode(), {"state": "dismissed"}),
        (json.dumps(BODY).encode(), {"group": "audit"}),
    ],
    ids=["fitting", "other id in headers", "no type in headers", "long", "dismissed", "other group"],
)
def test_a_body_that_names_its_event_completes_the_letter(body: bytes, before: dict[str, Any]) -> None:
    letter = as_an_earlier_release_recorded(body, **before)
    for _ in range(2):
        complete_subjects()
        assert named(letter) == (EVENT_ID, "ORDER_PAID", 7)


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"",
        json.dumps(BODY).encode()[:-1],
        *(json.dumps({name: value for name, value in BODY.items() if name != left_out}).encode() for left_out in BODY),
        json.dumps(BODY | {"orderId": "7"}).encode(),
        json.dumps(BODY | {"orderId": 2**63}).encode(),
        json.dumps(BODY | {"eventId": "no id"}).encode(),
        json.dumps(BODY | {"eventType": "A\x00"}).encode(),
        b"[" * 100_000,
    ],
    ids=range(11),
)
def test_a_body_that_names_less_leaves_the_letter_as_it_is(body: bytes) -> None:
    letter = as_an_earlier_release_recorded(body)
    complete_subjects()
    assert named(letter) == (EVENT_ID, "ORDER_PAID", None)


def test_a_null_value_and_one_that_is_too_large_are_left_alone() -> None:
    null = as_an_earlier_release_recorded(b"garbage", value=None)
    large = json.dumps(BODY | {"x": "x" * MAX_MESSAGE_BYTES}).encode()
    too_large = as_an_earlier_release_recorded(b"more garbage", value=large)
    complete_subjects()
    assert [named(letter)[2] for letter in (null, too_large)] == [None, None]


def test_a_letter_that_has_its_subject_is_not_read_again() -> None:
    letter = as_an_earlier_release_recorded(json.dumps(BODY).encode())
    other = uuid4()
    DeadLetter.objects.update(event_id=other, subject_id=8)
    complete_subjects()
    assert named(letter) == (other, "ORDER_PAID", 8)
