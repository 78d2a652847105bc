import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.troubles import Poison
from orders.events import ORDER_EVENT_TYPES, OrderEvent, decode, encode

BODY: dict[str, Any] = {
    "eventId": "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
    "eventType": "ORDER_CREATED",
    "timestamp": "2025-01-30T10:15:30.123Z",
    "orderId": 123,
    "userId": 45,
    "totalAmount": 50000.00,
}
EXPECTED = OrderEvent(
    event_id=UUID(BODY["eventId"]),
    event_type="ORDER_CREATED",
    timestamp=datetime(2025, 1, 30, 10, 15, 30, 123000, tzinfo=UTC),
    order_id=123,
    user_id=45,
    total_amount=Decimal("50000.00"),
)


def body(**changes: Any) -> bytes:
    return json.dumps(BODY | changes).encode()


def raw(name: str, literal: str) -> bytes:
    """Return an event's JSON body whose field `name` has exactly the JSON text `literal`."""
    return body(**{name: "@"}).replace(b'"@"', literal.encode())


def test_an_event_is_encoded_exactly_as_in_the_contract() -> None:
    assert encode(EXPECTED) == (
        b'{"eventId":"5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55","eventType":"ORDER_CREATED",'
        b'"timestamp":"2025-01-30T10:15:30.123Z","orderId":123,"userId":45,"totalAmount":50000.00}'
    )


@given(
    st.builds(
        OrderEvent,
        event_id=st.uuids(),
        event_type=st.sampled_from(ORDER_EVENT_TYPES),
        timestamp=st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)).map(
            lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        ),
        order_id=st.integers(-(2**63), 2**63 - 1),
        user_id=st.integers(-(2**63), 2**63 - 1),
        total_amount=st.decimals(0, 10**18, places=2),
    )
)
def test_decoding_returns_the_encoded_event(event: OrderEvent) -> None:
    assert decode(encode(event)) == event


@pytest.mark.parametrize(
    "value",
    [
        body(),
        body(channel="web", nested={"a": [1, None]}),
        body(timestamp="2025-01-30T19:15:30.123+09:00"),
        raw("timestamp", "1738232130.123"),
        raw("timestamp", "1738232130.123000000"),
        raw("totalAmount", "50000"),
        raw("totalAmount", "5e4"),
        raw("totalAmount", "50000.000"),
        body(totalAmount="50000.00"),
        body(totalAmount="50000"),
        json.dumps(BODY, indent=2).encode(),
    ],
)
def test_every_spelling_of_an_event_is_decoded(value: bytes) -> None:
    assert decode(value) == EXPECTED


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null"),
        (b"", "Not an order event"),
        (b"garbage", "Not an order event"),
        (b"[]", "Not an order event"),
        (b"\xff", "Not UTF-8"),
        (b"\xef\xbb\xbf" + body(), r"byte order mark of UTF-8 \(ef bb bf\). Write UTF-8 without it"),
        (body().decode().encode("utf-32"), r"byte order mark of UTF-32 \(ff fe 00 00\)"),
        (body().decode().encode("utf-16"), r"byte order mark of UTF-16 \(ff fe\)"),
        (b"\xfe\xff" + body().decode().encode("utf-16-be"), r"byte order mark of UTF-16 \(fe ff\)"),
        (b"\0\0\0\0\x07" + body(), "5 bytes of a schema registry .* id 7.. Write plain JSON"),
        (b"\0\xff\xff\xff\xff\x02\x08avro", "schema registry .* id 4294967295"),
        (b"\0" * 5, "Not an order event: JSON"),
        (body()[:-1] + b',"note":"\xff"}', "Not UTF-8"),
        (b"[" * 100_000, "Not an order event"),
        (b"{" + b'"a":{' * 100_000, "Not an order event"),
        (body(eventId="123"), "eventId"),
        (body(eventType="ORDER_LOST"), "eventType"),
        (body(eventType=None), "eventType"),
        (body(orderId="123"), "orderId"),
        (body(orderId=1.5), "orderId"),
        (body(orderId=True), "orderId"),
        (body(orderId=2**63), "orderId"),
        (body(userId=None), "userId"),
        (body(timestamp="yesterday"), "timestamp"),
        (body(timestamp="2025-01-30T10:15:30"), "timestamp has no offset"),
        *(
            (
                body(timestamp=f"2016-12-31{t}23:59:60{rest}"),
                "timestamp has second 60, which is not accepted; write 59",
            )
            for t in "Tt "
            for rest in ("Z", ".5Z", "+00:00", "+09:00")
        ),
        (body(timestamp="2016-12-31T23:60:00Z"), "timestamp is neither"),
        (body(timestamp=None), "timestamp"),
        (body(timestamp=True), "timestamp"),
        (raw("timestamp", "1e999999999"), "year 9999"),
        (raw("timestamp", "999999999999"), "timestamp"),
        (body(totalAmount=None), "totalAmount"),
        (body(totalAmount=False), "totalAmount"),
        (body(totalAmount="NaN"), "totalAmount is not a number"),
        (body(totalAmount="Infinity"), "totalAmount is not a number"),
        (body(totalAmount=" 1"), "totalAmount is not a number"),
        (body(totalAmount="١"), "totalAmount is not a number"),
        (body(totalAmount=1.005), "more than 2 decimals"),
        (raw("totalAmount", "1e-999999999"), "more than 2 decimals"),
        (raw("totalAmount", "1e999999999"), "whole digits"),
        (json.dumps({key: BODY[key] for key in list(BODY)[1:]}).encode(), "eventId"),
    ],
)
def test_an_invalid_event_is_poison_with_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(Poison, match=reason):
        decode(value)


def test_every_spelling_of_a_zero_amount_is_zero() -> None:
    for literal in ("0", "-0.00", "0e400", "0.000"):
        assert str(decode(raw("totalAmount", literal)).total_amount) == "0.00"
