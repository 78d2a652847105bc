"""The client checks the sizes and counts that records and batches claim before it allocates memory for them."""

import resource
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from events.kafka import Record, Unreadable
from events.kafka.decompression import MAX_BATCH_BYTES, ZSTD_WINDOW_BYTES
from events.kafka.patches.batches import TolerantRecordBatch
from events.kafka.records import MAX_HEADERS, MAX_RECORD_BYTES, DamagedRecord, UnreadableRecord
from tests.kafka.record_batches import CODECS, XERIAL, batch, compressed_batch, field, framed, record, varint

MIB = 1024 * 1024
SENTINEL_OFFSET = 2**40
"""Offset of the valid batch that follows the damaged batches of a test."""
MAX_INT32 = 2**31 - 1
RECORD_START = varint(1) + field(b"key") + field(b"value")
"""Offset delta, key and value of the second record of a batch. In a record, the number of headers follows them."""


def read(*batches: bytes) -> list[Record]:
    """Return all records that the client reads from the batches."""
    fetched = MemoryRecords(b"".join(batches))
    return list(Fetcher.PartitionRecords(0, TopicPartition("order-events", 0), fetched).take())


def reported(*batches: bytes) -> list[tuple[int, str]]:
    """Return (offset, reason) of each unreadable record in `batches`.

    Check that the client reads a valid batch that follows `batches`.
    """
    *records, behind = read(*batches, batch(record(b"behind"), offset=SENTINEL_OFFSET))
    assert (behind.offset, behind.value) == (SENTINEL_OFFSET, b"behind")
    unreadable = [one for one in records if isinstance(one.value, Unreadable)]
    assert all(isinstance(one.value.error, UnreadableRecord) for one in unreadable)
    return [(one.offset, str(one.value.error)) for one in unreadable]


def peak_mib(work: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def zstd_frame_of_window(log: int, eighths: int) -> bytes:
    """Return a frame of one record with a window of 2**log * (1 + eighths / 8) bytes (RFC 8878, 3.1.1.1.2)."""
    content = record(b"value")
    return (
        b"\x28\xb5\x2f\xfd\x00"
        + bytes([log - 10 << 3 | eighths])
        + (len(content) << 3 | 1).to_bytes(3, "little")
        + content
    )


def reserved_bytes() -> int:
    """Return the size of this process's address space in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class TestBatches:
    @pytest.mark.parametrize("codec", CODECS)
    def test_a_batch_of_just_the_bound_is_read(self, codec: str) -> None:
        values = [bytes(MIB)] * 31
        filler = record(b"", delta=31, key=b"x" * (MAX_BATCH_BYTES - 32 * MIB + 900_000))
        records = [*(record(value, delta=delta) for delta, value in enumerate(values)), filler]
        assert [one.value for one in read(batch(*records, codec=codec))] == [*values, b""]

    @pytest.mark.parametrize("codec", CODECS)
    def test_a_batch_above_the_bound_is_reported_once(self, codec: str) -> None:
        records = [record(bytes(MIB), delta=delta) for delta in range(33)]
        sent = batch(*records, codec=codec)
        name = codec.replace("xerial", "snappy")
        reason = (
            f"The record batch at offsets 0 to 32, {len(sent) - 61} bytes of {name}, cannot be decompressed: "
            f"more than {MAX_BATCH_BYTES} bytes come out of it"
        )
        assert reported(sent) == [(32, reason)]

    @pytest.mark.parametrize("codec", CODECS)
    def test_a_bomb_is_not_made(self, codec: str) -> None:
        bomb = batch(record(bytes(150 * MIB)), codec=codec)
        assert peak_mib(lambda: read(bomb)) < 2 * MAX_BATCH_BYTES / MIB + 2 * len(bomb) / MIB + 1

    @pytest.mark.parametrize(
        ("codec", "bytes_that_lie"),
        [
            ("snappy", b"\xff\xff\xff\xff\x0f" + bytes(50)),  # 4 GiB
            ("snappy", b"\xff\xff\xff\x0f" + bytes(50)),  # 31 MiB
            ("snappy", b"\xff" * 50),
            ("snappy", b""),
            ("xerial", XERIAL + b"\x00\x00\x00\x0a" + b"\xff\xff\xff\xff\x0f" + bytes(5)),
            ("xerial", XERIAL + b"\xff\xff\xff\xfc" + bytes(50)),  # A block of -4 bytes.
            ("zstd", b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little") + b"\x03\x00\x00"),
            ("zstd", b"\x28\xb5\x2f\xfd\x00\xa8\x03\x00\x00"),  # A window of 2 GiB.
            ("lz4", b"\x04\x22\x4d\x18\x68\x40" + (2**40).to_bytes(8, "little") + b"\x00" * 10),
        ],
    )
    def test_a_length_that_lies_is_not_believed(self, codec: str, bytes_that_lie: bytes) -> None:
        lying = compressed_batch(bytes_that_lie, codec=codec)
        assert peak_mib(lambda: reported(lying)) < 1
        ((offset, reason),) = reported(lying)
        assert offset == 0
        assert "cannot be decompressed" in reason

    @pytest.mark.parametrize("window_log", [28, 29, 30, 31])
    @pytest.mark.parametrize("eighths", [0, 7])
    def test_a_larger_zstd_window_is_not_reserved(self, window_log: int, eighths: int) -> None:
        lying = compressed_batch(zstd_frame_of_window(window_log, eighths), codec="zstd")
        allowed = reserved_bytes() + ZSTD_WINDOW_BYTES
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, before[1]))
        try:
            ((_, reason),) = reported(lying)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        assert "Frame requires too much memory" in reason

    @pytest.mark.parametrize("level", [1, 3, 19, 20, 21, 22])
    def test_the_window_of_every_zstd_level_is_taken(self, level: int) -> None:
        compressor = zstandard.ZstdCompressor(level=level).compressobj()
        content = record(b"value")
        # Compress in two parts like a producer's stream, so that the compressor does not know the total size.
        compressed = compressor.compress(content[:1]) + compressor.compress(content[1:]) + compressor.flush()
        assert [one.value for one in read(compressed_batch(compressed, codec="zstd"))] == [b"value"]

    @pytest.mark.parametrize(
        ("count", "last_delta", "offset", "reason"),
        [
            (MAX_INT32, MAX_INT32 - 1, MAX_INT32 - 1, "cannot be read from offset 2 on"),
            (3, 2, 2, "cannot be read from offset 2 on"),
            (1, 1, 1, "has 9 bytes behind its last record"),
            (0, 1, 1, "has 18 bytes behind its last record"),
            (MAX_INT32, 1, 1, f"claims to have {MAX_INT32} records"),
            (-1, 1, 1, "claims to have -1 records"),
            (2, -5, 0, "claims to have 2 records"),
        ],
    )
    def test_a_record_count_that_lies_is_reported_once(
        self, count: int, last_delta: int, offset: int, reason: str
    ) -> None:
        lying = batch(record(b"0"), record(b"1", delta=1), count=count, last_delta=last_delta)
        ((reported_offset, reported_reason),) = reported(lying)
        assert reported_offset == offset
        assert reason in reported_reason

    def test_a_compacted_batch_is_sound(self) -> None:
        assert [one.offset for one in read(batch(record(b"", delta=3), record(b"", delta=7), last_delta=9))] == [3, 7]
        assert read(batch(last_delta=9)) == []

    @pytest.mark.parametrize(
        "make",
        [
            lambda count: compressed_batch(XERIAL + b"\x00\x00\x00\x01\x00" * count, codec="xerial"),
            lambda count: batch(*(record(b"", delta=delta, headers=varint(MAX_INT32)) for delta in range(count))),
            lambda count: batch(*(framed(varint(delta) + varint(MAX_INT32) + bytes(20)) for delta in range(count))),
        ],
        ids=["blocks", "headers", "keys"],
    )
    def test_work_grows_no_faster_than_the_bytes(self, make: Callable[[int], bytes]) -> None:
        def seconds(count: int) -> float:
            made = make(count)
            began = time.process_time()
            read(made)
            return time.process_time() - began

        assert seconds(80_000) < 24 * seconds(10_000)


class TestRecords:
    def test_a_record_of_just_the_bound_is_read(self) -> None:
        value = bytes(MAX_RECORD_BYTES - 12)
        assert [one.value for one in read(batch(record(value)))] == [value]

    @pytest.mark.parametrize(
        "large",
        [
            record(bytes(MAX_RECORD_BYTES)),
            record(b"", key=bytes(MAX_RECORD_BYTES)),
            record(b"", headers=varint(1) + field(b"name") + field(bytes(MAX_RECORD_BYTES))),
            record(b"", headers=varint(1) + field(b"n" * MAX_RECORD_BYTES) + field(b"")),
        ],
        ids=["value", "key", "header", "header name"],
    )
    def test_a_record_above_the_bound_is_reported_with_its_size(self, large: bytes) -> None:
        ((offset, reason),) = reported(batch(large, record(b"", delta=1)))
        assert offset == 0
        assert f"bytes, more than {MAX_RECORD_BYTES}" in reason

    @pytest.mark.parametrize(
        "lying",
        [
            varint(1) + varint(MAX_INT32) + b"key",
            varint(1) + field(b"key") + varint(MAX_INT32) + b"value",
            varint(1) + field(b"key") + field(b"value"),
            RECORD_START + varint(MAX_INT32),
            RECORD_START + varint(MAX_INT32) + bytes(1_500_000),
            RECORD_START + varint(MAX_HEADERS + 1) + bytes(2 * MAX_HEADERS + 2),
            RECORD_START + varint(-1),
            RECORD_START + varint(1) + varint(MAX_INT32) + b"name",
            RECORD_START + varint(1) + varint(-1) + field(b""),
            RECORD_START + varint(1) + field(b"name") + varint(MAX_INT32),
            RECORD_START + varint(0) + b"behind",
            RECORD_START + b"\xff" * 20,
            varint(MAX_INT32) + field(b"key") + field(b"value") + varint(0),
            varint(-5) + field(b"key") + field(b"value") + varint(0),
        ],
    )
    def test_a_record_that_lies_is_reported_and_neighbours_are_read(self, lying: bytes) -> None:
        records = batch(record(b"0"), framed(lying), record(b"2", delta=2))
        ((offset, reason),) = reported(records)
        assert offset == 1
        assert reason.startswith("The record cannot be read: ")
        assert [one.offset for one in read(records)] == [0, 1, 2]
        assert peak_mib(lambda: read(records)) < 6

    @pytest.mark.parametrize(
        ("cut", "behind"),
        [(field(b"key") + field(b"value"), varint(0)), (field(b"key"), field(None) + varint(0))],
        ids=["header count", "value"],
    )
    def test_a_record_is_not_read_on_behind_its_end(self, cut: bytes, behind: bytes) -> None:
        (offset, reason), _ = reported(batch(record(b"0"), framed(varint(1) + cut) + behind, count=2, last_delta=1))
        assert (offset, reason[:26]) == (1, "The record cannot be read:")

    @pytest.mark.parametrize("before", [b"", field(b"key")], ids=["key", "value"])
    def test_no_part_of_a_record_takes_the_bytes_behind_it(self, before: bytes) -> None:
        greedy = framed(varint(0) + before + varint(MAX_INT32))
        records = iter(TolerantRecordBatch(memoryview(batch(greedy, *[record(bytes(MIB), delta=1)] * 8))))
        assert peak_mib(lambda: next(records)) < 1

    def test_headers_count_as_the_memory_they_take(self) -> None:
        """A poll is limited in bytes of memory. So a header counts with the memory of its Python objects."""
        some = batch(record(b"", headers=varint(MAX_HEADERS) + bytes(2 * MAX_HEADERS)))
        records = Fetcher.PartitionRecords(0, TopicPartition("order-events", 0), MemoryRecords(some))
        assert len(records.take()[0].headers) == MAX_HEADERS
        assert records.bytes_read > 100 * MAX_HEADERS


class TestLegacyMessageSets:
    def message_set(self, magic: int, value: bytes, *, compression: int = 0) -> bytearray:
        builder = MemoryRecordsBuilder(magic, compression, 10**9)
        builder.append(timestamp=1, key=b"k", value=value)
        builder.close()
        return bytearray(builder.buffer())

    @pytest.mark.parametrize("magic", [0, 1])
    def test_a_plain_one_is_read(self, magic: int) -> None:
        (one,) = read(self.message_set(magic, b"value"))
        assert (one.offset, one.key, one.value) == (0, b"k", b"value")

    @pytest.mark.parametrize("magic", [0, 1])
    def test_a_compressed_one_is_refused(self, magic: int) -> None:
        bomb = self.message_set(magic, bytes(100 * MIB), compression=1)
        assert peak_mib(lambda: read(bomb)) < 2
        assert reported(bomb) == [
            (0, f"The message set of format {magic} at offset 0 is compressed, which is read from format 2 on only")
        ]

    def test_a_large_one_is_refused(self) -> None:
        ((_, reason),) = reported(self.message_set(1, bytes(MAX_RECORD_BYTES)))
        assert f"more than {MAX_RECORD_BYTES}" in reason

    def test_a_damaged_one_is_reported(self) -> None:
        damaged = self.message_set(1, b"value")
        damaged[-1] ^= 0xFF
        (one,) = read(damaged)
        assert isinstance(one.value.error, DamagedRecord)
