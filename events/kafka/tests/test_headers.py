"""The headers of a record: their checks when it is read, and their decoding when a caller reads them."""

from itertools import product

import pytest
from kafka import TopicPartition
from kafka.record.memory_records import MemoryRecords

from events.kafka import Record, has_header
from events.kafka.patches.group import ByteLimitedFetcher
from events.kafka.patches.headers import PackedHeaders, is_plain, read_headers
from events.wire.headers import Header, pack, unpack
from tests.kafka.record_batches import batch, field, record, varint

TELLING_BYTES = (b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"A", b"\x80")
"""Bytes with a meaning in a record's headers: lengths of 0, -1, 1, -2 and 2, "A" (also a length of -33), and the first
byte of a longer length."""
HEADERS: dict[str, list[Header]] = {
    "none": [],
    "plain": [("ce_id", b"1"), ("ce_type", b"ORDER_PAID"), ("ce_id", b"")],
    "nameless": [("", b""), ("", b"x")],
    "null": [("a", None), ("b", b"2")],
    "long": [("a" * 64, b"b" * 63), ("c", b"d" * 200)],
    "bytes": [("a", b"\xff\x00"), ("b", b"2")],
    "Korean": [("이름", "값".encode())],
}


def packed(headers: list[Header]) -> bytes:
    return b"".join(field(name.encode()) + field(value) for name, value in headers)


def read(*batches: bytes) -> list[Record]:
    """Return the records that a member of a group reads from these batches."""
    part = ByteLimitedFetcher.PartitionRecords(0, TopicPartition("order-events", 0), MemoryRecords(b"".join(batches)))
    part.full_at = 2**20
    return part.take(500)


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_headers_read_as_the_list_that_was_sent(headers: list[Header]) -> None:
    (one,) = read(batch(record(b"", headers=varint(len(headers)) + packed(headers))))
    for _ in range(2):
        assert list(one.headers) == headers
    assert one.headers == headers
    assert one.headers != [*headers, ("another", b"")]
    assert (len(one.headers), one.headers[-1:]) == (len(headers), headers[-1:])
    assert unpack(pack(one.headers)) == headers


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_a_header_is_found_by_its_whole_name_alone(headers: list[Header]) -> None:
    (one,) = read(batch(record(b"", headers=varint(len(headers)) + packed(headers))))
    names = {name for name, _ in headers}
    for wanted in (*names, "ce_", "ORDER_PAID", "1", "이름"):
        assert has_header(one.headers, wanted) == has_header(headers, wanted) == (wanted in names)


@pytest.mark.parametrize("count", range(4))
def test_headers_left_packed_are_always_sound(count: int) -> None:
    """If `is_plain` accepts a short sequence of `TELLING_BYTES`, the sequence can be decoded completely."""
    left_packed = 0
    for length in range(7):
        for parts in product(TELLING_BYTES, repeat=length):
            some = b"".join(parts)
            if is_plain(some, count):
                headers, end = read_headers(some, 0, len(some), count)
                assert end == len(some)
                assert list(PackedHeaders(some, count)) == headers
                left_packed += 1
    assert left_packed > 0


def test_the_headers_of_an_event_are_left_packed() -> None:
    (one,) = read(batch(record(b"", headers=varint(3) + packed(HEADERS["plain"]))))
    assert isinstance(one.headers, PackedHeaders)
