"""Unreadable records: the client returns each at its offset, and then the readable records behind it."""

from collections.abc import Sequence

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from events.kafka import Record, Unreadable
from events.kafka.records import DamagedRecord, UnreadableRecord
from tests.kafka.record_batches import signed

Headers = Sequence[tuple[str, bytes]]


class NotUTF8(str):
    """A header's name that kafka-python sends as bytes that are not UTF-8."""

    def encode(self, *args: str) -> bytes:
        return b"\xff\xfe"


def batch(*all_headers: Headers, offset: int = 0, compression: int = 0) -> bytearray:
    """Return a record batch as a broker stores it, one record for each of `all_headers`.

    The value of each record is its number, from b"0" on. The keys are long enough to be worth compressing.
    """
    builder = MemoryRecordsBuilder(2, compression, 1_000_000)
    for number, headers in enumerate(all_headers):
        builder.append(timestamp=1, key=b"k" * 200, value=b"%d" % number, headers=list(headers))
    builder.close()
    records = bytearray(builder.buffer())
    records[:8] = offset.to_bytes(8, "big")
    return records


def read(*batches: bytes, position: int = 0) -> list[Record]:
    """Return the records that the client reads from `position` on."""
    fetched = MemoryRecords(b"".join(batches))
    return list(Fetcher.PartitionRecords(position, TopicPartition("order-events", 0), fetched).take())


def readable(records: list[Record]) -> list[tuple[int, bytes | None]]:
    return [(record.offset, None if isinstance(record.value, Unreadable) else record.value) for record in records]


def test_a_header_name_not_in_utf8_makes_one_record_unreadable() -> None:
    records = read(batch([], [(NotUTF8("x"), b"1")], [("fine", b"1")]), batch([], offset=3))
    assert readable(records) == [(0, b"0"), (1, None), (2, b"2"), (3, b"0")]
    assert records[2].headers == [("fine", b"1")]
    assert "utf-8" in str(records[1].value.error)


def test_reading_can_begin_behind_an_unreadable_record() -> None:
    assert readable(read(batch([(NotUTF8("x"), b"1")], []), position=1)) == [(1, b"1")]


@pytest.mark.parametrize("position", [0, 1])
def test_a_wrong_checksum_makes_a_batch_unreadable_as_a_whole(position: int) -> None:
    damaged = batch([], [])
    damaged[-1] ^= 0xFF
    unreadable, sound = read(damaged, batch([], offset=2), position=position)
    assert readable([unreadable, sound]) == [(1, None), (2, b"0")]
    assert unreadable.value.first_offset == 0
    assert isinstance(unreadable.value.error, DamagedRecord)
    assert "offsets 0 to 1 has a wrong checksum" in str(unreadable.value.error)


def test_damaged_flags_do_not_hide_records() -> None:
    damaged = batch([], [])
    damaged[22] ^= 0x20  # The flag of a control batch, which the client does not hand out.
    assert readable(read(damaged, batch([], offset=2))) == [(1, None), (2, b"0")]


@pytest.mark.parametrize("compression", range(1, 8))
def test_a_batch_that_cannot_be_decompressed_is_unreadable(compression: int) -> None:
    damaged = signed(batch([], []), compression=compression)
    unreadable, sound = read(damaged, batch([], offset=2))
    assert readable([unreadable, sound]) == [(1, None), (2, b"0")]
    assert isinstance(unreadable.value.error, UnreadableRecord)
    assert "cannot be decompressed" in str(unreadable.value.error)


@pytest.mark.parametrize("compression", range(5))
def test_every_compression_can_be_read(compression: int) -> None:
    assert readable(read(batch([], [], compression=compression))) == [(0, b"0"), (1, b"1")]
