"""A dead letter keeps the time and the error of its first failure and of each failed replay.

The attempts are recorded in the transaction that changes the letter.
"""

from datetime import datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from events.consuming.attempts import Attempt, attempts_at, reason_of
from events.consuming.dead_letters import close_replayed, dismiss, record_dead_letter
from events.consuming.replay import replay
from events.models import DeadLetter, DeadLetterAttempt, OutboxEvent
from events.troubles import Poison
from events.wire.headers import Header, unpack
from testkit.factories import kafka_record

pytestmark = pytest.mark.django_db

GROUP = "group"


def fail(error: str, *, headers: list[Header] | None = None, group: str = GROUP, offset: int = 0) -> None:
    record = kafka_record(b"garbage", offset=offset, headers=headers or [])
    record_dead_letter(record=record, error=Poison(error), group=group)


@pytest.fixture
def letter() -> DeadLetter:
    fail("first")
    return DeadLetter.objects.get()


def replayed(letter: DeadLetter) -> list[Header]:
    """Replay the letter, and return the headers of the replay."""
    assert not replay(letter_id=letter.pk).refusal
    return unpack(OutboxEvent.objects.filter(dead_letter=letter).latest("pk").headers)


def told(letter: DeadLetter) -> list[tuple[int, str]]:
    return [(attempt.number, attempt.reason) for attempt in attempts_at([letter]).get(letter.pk, [])]


def test_every_failed_replay_keeps_its_time_and_reason(letter: DeadLetter) -> None:
    assert told(letter) == [(0, "Poison: first")]
    times: list[datetime | None] = []
    for number, error in ((1, "second"), (2, "third")):
        fail(error, headers=replayed(letter), offset=number)
    assert told(letter) == [(0, "Poison: first"), (1, "Poison: second"), (2, "Poison: third")]
    for attempt in attempts_at([letter])[letter.pk]:
        times += [attempt.sent_at, attempt.failed_at] if attempt.is_replay else [attempt.failed_at]
    assert times[0] == letter.created_at
    assert times == sorted(filter(None, times))
    letter.refresh_from_db()
    assert (letter.state, letter.error_message) == ("open", "third")


def test_a_replay_under_way_has_no_failure(letter: DeadLetter) -> None:
    replayed(letter)
    first, second = attempts_at([letter])[letter.pk]
    assert first == Attempt(0, None, letter.created_at, "Poison: first")
    assert (second.number, second.failed_at, second.reason) == (1, None, "")


def test_a_replay_that_was_handled_has_no_failure(letter: DeadLetter) -> None:
    fail("second", headers=replayed(letter), offset=1)
    record = kafka_record(b"garbage", offset=2, headers=replayed(letter))
    close_replayed([record], group=GROUP)
    assert told(letter) == [(0, "Poison: first"), (1, "Poison: second"), (2, "")]


def test_a_letter_has_at_most_a_row_per_replay(letter: DeadLetter) -> None:
    for offset in range(1, 8):
        if not replay(letter_id=letter.pk).refusal:
            headers = unpack(OutboxEvent.objects.filter(dead_letter=letter).latest("pk").headers)
        for _ in range(3):
            fail(f"again {offset}", headers=headers, offset=offset)
    assert [number for number, _ in told(letter)] == [0, 1, 2, 3, 4, 5]
    assert told(letter)[-1] == (5, "Poison: again 7")


@pytest.mark.parametrize("count", [b"0", b"2", b"-1", b"1.0", b"", b"\xff", b"9" * 18, b"70000", None])
def test_a_forged_number_changes_no_attempt(letter: DeadLetter, count: bytes | None) -> None:
    replayed(letter)
    before = list(DeadLetterAttempt.objects.order_by("pk").values())
    fail("forged", headers=[("dead-letter-id", str(letter.pk).encode()), ("replay-count", count)], offset=1)
    assert list(DeadLetterAttempt.objects.order_by("pk").values()) == before


def test_a_message_without_a_number_makes_no_attempt(letter: DeadLetter) -> None:
    fail("forged", headers=[("dead-letter-id", str(letter.pk).encode())], offset=1)
    assert not DeadLetterAttempt.objects.exists()


def test_a_dismissed_letter_keeps_its_attempts(letter: DeadLetter) -> None:
    headers = replayed(letter)
    dismiss(letter_id=letter.pk)
    fail("too late", headers=headers, offset=1)
    assert told(letter) == [(0, "Poison: first"), (1, "")]


def test_a_failure_of_another_group_is_not_of_this_letter(letter: DeadLetter) -> None:
    fail("first", group="audit")
    fail("of audit", headers=replayed(letter), group="audit", offset=1)
    assert told(letter) == [(0, "Poison: first"), (1, "")]


def test_an_attempt_is_undone_with_its_letter(letter: DeadLetter) -> None:
    headers = replayed(letter)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        fail("second", headers=headers, offset=1)
        assert told(letter)[-1] == (1, "Poison: second")
        _ = 1 / 0
    letter.refresh_from_db()
    assert (letter.error_message, told(letter)[-1]) == ("first", (1, ""))


def test_attempts_are_deleted_with_their_letter(letter: DeadLetter) -> None:
    fail("second", headers=replayed(letter), offset=1)
    letter.delete()
    assert not DeadLetterAttempt.objects.exists()


def test_a_letter_whose_count_was_set_back_is_replayed(letter: DeadLetter) -> None:
    """An operator who needs more replays than the limit allows sets the count back with SQL."""
    fail("second", headers=replayed(letter), offset=1)
    DeadLetter.objects.update(replay_count=0)
    fail("third", headers=replayed(letter), offset=2)
    assert told(letter) == [(0, "Poison: first"), (1, "Poison: third")]


def test_attempts_above_a_count_that_was_set_back_are_gone(letter: DeadLetter) -> None:
    """If an operator sets a letter's replay count back to 0, the next replay deletes the old attempts.

    Otherwise admin would list them after the new first replay, as if they had come later.
    """
    for number in (1, 2):
        fail(f"failure {number}", headers=replayed(letter), offset=number)
    DeadLetter.objects.update(replay_count=0)
    replayed(letter)
    assert told(letter) == [(0, "Poison: first"), (1, "")]


def test_attempts_of_an_earlier_release_are_unknown(letter: DeadLetter) -> None:
    """The earlier release has replayed the letter twice without recording an attempt."""
    DeadLetter.objects.update(replay_count=2)
    assert told(letter) == []
    fail("fourth", headers=replayed(letter), offset=3)
    assert told(letter) == [(3, "Poison: fourth")]


def test_a_reason_of_several_lines_is_shown_in_one() -> None:
    assert reason_of("django.db.utils.DataError", "bad value\nLINE 1: x\n") == "DataError: bad value LINE 1: x"
    assert reason_of("", "") == ""


def test_a_long_reason_is_cut_by_the_database(letter: DeadLetter) -> None:
    fail("x" * 100_000, headers=replayed(letter), offset=1)
    with CaptureQueriesContext(connection) as queries:
        assert told(letter)[-1] == (1, f"Poison: {'x' * 200}")
    assert [query["sql"].count('LEFT("events_deadletterattempt"."error_message", 200)') for query in queries][:1] == [1]


@pytest.mark.parametrize("number", [1, 30])
def test_attempts_at_any_number_of_letters_take_two_queries(number: int, django_assert_max_num_queries: Any) -> None:
    for offset in range(number):
        fail("first", offset=offset)
    letters = list(DeadLetter.objects.all())
    replayed(letters[0])
    with django_assert_max_num_queries(2):
        assert len(attempts_at(letters)) == number
