import pytest
from django.test import Client

from events.dead_letters import record_dead_letter
from events.foreign_text import LIMIT, cut, stack_trace
from events.headers import pack, unpack
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from orders.events import decode
from tests.factories import kafka_record

EVENT = (
    '{"eventId":"5f0c7a3e-8a53-4c6f-9f3a-1f0e7c1f4a52","eventType":"%s","timestamp":"%s","orderId":1,"userId":1,'
    '"totalAmount":1}'
)


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_a_short_text_stays_as_it_is(size: int) -> None:
    assert cut("x" * size) == "x" * size


def test_a_long_text_is_cut_and_says_so() -> None:
    assert cut("x" * (LIMIT + 1)) == "x" * LIMIT + "... (the first 8192 of 8193 characters)"
    assert cut("abcdef", 3) == "abc... (the first 3 of 6 characters)"


def test_a_stack_trace_keeps_its_end() -> None:
    def fail(depth: int, other: int) -> None:
        # Two calls in turn, because Python folds what repeats.
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
    assert LIMIT / 2 < len(trace) < LIMIT + 100


@pytest.mark.django_db
@pytest.mark.parametrize(
    "value",
    [
        EVENT % ("x" * 160_000, "2025-01-30T10:15:30Z"),
        EVENT % ("주" * 160_000, "2025-01-30T10:15:30Z"),
        EVENT % ("eyJ-" * 40_000, "2025-01-30T10:15:30Z"),
        EVENT % ("ORDER_PAID", "9" * 160_000),
        "y" * 160_000,
    ],
)
def test_a_dead_letter_keeps_a_bounded_reason(value: str) -> None:
    record = kafka_record(value.encode())
    with pytest.raises(Poison) as poison:
        decode(record.value)
    record_dead_letter(record=record, error=poison.value, group="some-group")
    letter = DeadLetter.objects.get()
    assert len(letter.error_message) < LIMIT + 100
    assert len(letter.stacktrace) < LIMIT + 200
    assert "Poison" in letter.stacktrace
    headers = dict(unpack(OutboxEvent.objects.get().headers))
    message = headers["kafka_dlt-exception-message"] or b""
    assert 0 < len(message) <= 1024
    assert 0 < len(headers["kafka_dlt-exception-stacktrace"] or b"") <= 8 * 1024
    if len(letter.error_message.encode()) > 1024:
        assert letter.error_message.endswith(" characters)")
        assert b"... (cut, of " in message


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
