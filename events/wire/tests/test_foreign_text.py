import pytest
from django.test import Client

from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.foreign_text import TEXT_LIMIT_CHARS, cut, stack_trace
from events.wire.headers import pack, unpack
from testkit.factories import kafka_record


@pytest.mark.parametrize("size", [0, 1, TEXT_LIMIT_CHARS])
def test_a_short_text_stays_as_it_is(size: int) -> None:
    assert cut("x" * size) == "x" * size


def test_a_long_text_is_cut_with_a_note() -> None:
    assert cut("x" * (TEXT_LIMIT_CHARS + 1)) == "x" * TEXT_LIMIT_CHARS + "... (the first 8192 of 8193 characters)"
    assert cut("abcdef", 3) == "abc... (the first 3 of 6 characters)"


def test_a_stack_trace_keeps_its_end() -> None:
    def fail(depth: int, other: int) -> None:
        # Two functions call each other, because Python folds repeated frames.
        if depth:
            fail_again(depth - 1, other) if depth % 2 else fail(depth - 1, other)
        else:
            raise ValueError("the end")

    def fail_again(depth: int, other: int) -> None:
        fail(depth, other)

    with pytest.raises(ValueError, match="the end") as raised:
        fail(300, 0)
    trace = stack_trace(raised.value)
    assert "earlier parts of the stack trace are left out" in trace.splitlines()[0]
    assert trace.endswith("ValueError: the end\n")
    assert TEXT_LIMIT_CHARS / 2 < len(trace) < TEXT_LIMIT_CHARS + 100


@pytest.mark.django_db
@pytest.mark.parametrize("piece", ["x", "주", "eyJ-", "\\0", "\n", "\ud800"])
@pytest.mark.parametrize("times", [1, 40_000])
def test_a_dead_letter_keeps_a_bounded_reason(piece: str, times: int) -> None:
    def decode(text: str) -> None:
        try:
            raise ValueError(f"Invalid enum value {text}")
        except ValueError as error:
            raise Poison(f"Not an order event: {error}") from error

    with pytest.raises(Poison) as poison:
        decode(piece * times)
    record_dead_letter(record=kafka_record(b"garbage"), error=poison.value, group="some-group")
    letter = DeadLetter.objects.get()
    assert len(letter.error_message) < TEXT_LIMIT_CHARS + 100
    assert len(letter.stacktrace) < TEXT_LIMIT_CHARS + 200
    assert "Poison" in letter.stacktrace
    headers = dict(unpack(OutboxEvent.objects.get().headers))
    message = headers["kafka_dlt-exception-message"] or b""
    assert 0 < len(message) <= 1024
    assert 0 < len(headers["kafka_dlt-exception-stacktrace"] or b"") <= 8 * 1024
    assert letter.error_message.endswith(" characters)") == (times > 1)
    assert (b"... (cut, of " in message) == (times > 1)


@pytest.mark.django_db
def test_admin_shows_the_beginning_of_a_long_header(admin_client: Client) -> None:
    headers = [("traceparent", b"t" * 500_000), ("n" * 500_000, b"short"), ("binary", b"\xff" * 500_000)]
    record_dead_letter(record=kafka_record(b"garbage", headers=headers), error=Poison("no event"), group="some-group")
    letter = DeadLetter.objects.get()
    assert bytes(letter.headers) == pack(headers)
    page = admin_client.get(f"/admin/events/deadletter/{letter.pk}/change/").content.decode()
    assert page.count("(the first 8192 of 500000 bytes)") == 2
    assert "(the first 8192 of 500000 characters)" in page
    assert len(page) < 500_000
