"""Patches of kafka-python's readers of record batches: what cannot be read does not hide what stands behind it.

Nothing here believes a length that a record or a batch claims: it is judged before anything of that length is made.
The format is Kafka's, version 2: https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Iterator
from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import ControlRecord, DefaultRecord, DefaultRecordBatch, decode_varint
from kafka.record.legacy_records import LegacyRecordBatch

from events.kafka.decompression import MAX_BATCH_BYTES, decompress, name_of
from events.kafka.records import (
    HEADER_BYTES,
    MAX_HEADERS,
    MAX_RECORD_BYTES,
    DamagedRecord,
    Unreadable,
    UnreadableRecord,
)


def install() -> None:
    """Have every consumer of this process read with the classes below.

    Reason: `MemoryRecords` looks both classes up in its module, and takes none from a consumer.
    Upstream: no issue is known.
    Guard: tests/kafka/test_unreadable_records.py.
    It can go when both classes can go.
    """
    memory_records.DefaultRecordBatch = ForgivingRecordBatch
    memory_records.LegacyRecordBatch = ForgivingLegacyBatch


class ForgivingRecordBatch(DefaultRecordBatch):
    """A batch that yields what cannot be read as `Unreadable` values, and reads on behind it.

    What makes one record unreadable is told at the record's offset. What makes the rest of the batch unreadable is told
    once, at the batch's last offset, because a batch may claim 2^31 records.

    Reason: the original gives up for good: one header name that is not UTF-8 would hide all that stands behind it. It
    also believes every length, and decompresses whatever there is (docs/decisions/0006 and 0012).
    Upstream: no issue of kafka-python is known; https://github.com/aio-libs/aiokafka/issues/321 asks aiokafka for it.
    Guard: tests/kafka/test_unreadable_records.py, test_record_bounds.py and test_bombs.py.
    It can go when the client hands over unreadable records, and takes bounds for what it decompresses and makes.
    """

    _buffer: bytes
    _decompressed: bool
    _header_data: tuple[Any, ...]
    _pos: int
    _fault: Exception | None = None
    """Why nothing more of the batch can be read."""
    _is_told = False
    _next_delta = 0
    """The least offset that the next record may have, counted from the batch's first."""

    def __init__(self, buffer: memoryview) -> None:
        super().__init__(buffer)
        # Slices of bytes need no second copy.
        self._buffer = bytes(buffer)

    def validate_crc(self) -> bool:
        if not super().validate_crc():
            self._fault = DamagedRecord(f"{self._describe()} has a wrong checksum")
            # Its flags might say that it is compressed, or not for us. The checksum itself stands before them.
            self._header_data = (*self._header_data[:5], 0, *self._header_data[6:])
            # Where not even its length can be believed, the client has to give up.
            return 0 <= self.last_offset_delta < self.size_in_bytes
        if not 0 <= self.records_count <= self.last_offset_delta + 1:
            self._fault = UnreadableRecord(f"{self._describe()} claims to have {self.records_count} records")
            # Reading must not go on before it.
            self._header_data = (*self._header_data[:6], max(0, self.last_offset_delta), *self._header_data[7:])
        return True

    def __iter__(self) -> Any:
        if self._fault is None and not self._decompressed and self.compression_type:
            self._decompress()
        self._decompressed = True
        return self

    def _decompress(self) -> None:
        compressed = memoryview(self._buffer)[self._pos :]
        try:
            self._buffer = decompress(self.compression_type, compressed)
            self._pos = 0
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the decompressing libraries raise whatever they like
            self._fault = UnreadableRecord(
                f"{self._describe()}, {len(compressed)} bytes of {name_of(self.compression_type)}, cannot be"
                f" decompressed: {str(error) or type(error).__name__}"
            )

    def __next__(self) -> Any:
        if self._fault is None and self._next_record_index < self._num_records:
            self._next_record_index += 1
            try:
                return self._read_msg()
            except (ValueError, IndexError) as error:
                self._fault = UnreadableRecord(
                    f"{self._describe()} cannot be read from offset {self.base_offset + self._next_delta} on: {error}"
                )
        elif self._fault is None and self._pos != len(self._buffer):
            self._fault = UnreadableRecord(
                f"{self._describe()} has {len(self._buffer) - self._pos} bytes behind its last record"
            )
        if self._fault is None or self._is_told:
            raise StopIteration
        self._is_told = True
        if self.is_control_batch:
            return None
        # The work it took was that of a large batch, which counts where work is divided.
        return _unreadable(
            self.base_offset + self.last_offset_delta,
            self._fault,
            first_offset=self.base_offset + self._next_delta,
            size_in_bytes=MAX_BATCH_BYTES,
        )

    def _describe(self) -> str:
        return f"The record batch at offsets {self.base_offset} to {self.base_offset + self.last_offset_delta}"

    def _read_msg(self) -> Any:
        """Raises ValueError, IndexError where nothing behind this record can be read either."""
        buffer = self._buffer
        length, start = decode_varint(buffer, self._pos)
        end = start + length
        if not start < end <= len(buffer):
            raise ValueError(f"a record claims {length} bytes, and there are {len(buffer) - start}")
        self._pos = end
        offset_delta = self._next_delta
        try:
            # Attributes, which mean nothing yet, are the first byte.
            timestamp_delta, at = decode_varint(buffer, start + 1)
            claimed_delta, at = decode_varint(buffer, at)
            if not offset_delta <= claimed_delta <= self.last_offset_delta:
                raise ValueError(f"it claims offset {self.base_offset + claimed_delta}")
            offset_delta = claimed_delta
            if length > MAX_RECORD_BYTES:
                raise ValueError(f"it has {length} bytes, more than {MAX_RECORD_BYTES}")
            key, at = _field(buffer, at, end)
            value, at = _field(buffer, at, end)
            header_count, at = decode_varint(buffer, at)
            if not 0 <= header_count <= MAX_HEADERS:
                raise ValueError(f"it has {header_count} headers, more than {MAX_HEADERS}")
            headers = []
            for _ in range(header_count):
                name, at = _field(buffer, at, end)
                if name is None:
                    raise ValueError("a header has no name")
                header_value, at = _field(buffer, at, end)
                headers.append((name.decode(), header_value))
            if at != end:
                raise ValueError(f"it has {length} bytes, and says what {at - start} of them are")
            timestamp_type = self.timestamp_type
            timestamp = self.max_timestamp if timestamp_type else self.first_timestamp + timestamp_delta
            make = ControlRecord if self.is_control_batch else DefaultRecord
            record = make(
                length + HEADER_BYTES * header_count,
                self.base_offset + offset_delta,
                timestamp,
                timestamp_type,
                key,
                value,
                headers,
            )
        except (ValueError, IndexError, TypeError, struct.error) as error:  # The last two only of a control record.
            offset = self.base_offset + offset_delta
            reason = UnreadableRecord(f"The record cannot be read: {error}")
            record = None if self.is_control_batch else _unreadable(offset, reason, size_in_bytes=length)
        self._next_delta = offset_delta + 1
        return record


def _field(buffer: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    """Return the bytes that stand at `at` behind their length, None for a length below 0, and where they end.

    Most lengths take one byte, a zigzag varint of which is read here: twenty of them make a record.
    """
    length = buffer[at]
    at += 1
    if length >= 0x80:
        length, at = decode_varint(buffer, at - 1)
        if length < 0:
            return None, at
    elif length & 1:
        return None, at
    else:
        length >>= 1
    stop = at + length
    if stop > end:
        raise ValueError(f"a part of it claims {length} bytes, and there are {end - at}")
    return buffer[at:stop], stop


class ForgivingLegacyBatch(LegacyRecordBatch):
    """A message set of the formats before Kafka 0.11, which holds one record unless it is compressed.

    A compressed one is refused: Kafka 4 does not have it any more, and its reader, which follows nested sets and the
    lengths they claim, would need all the care that the newer format gets.

    Reason, upstream, and when it can go: as for `ForgivingRecordBatch`.
    Guard: tests/kafka/test_record_bounds.py.
    """

    def validate_crc(self) -> bool:
        """Leave it to `__iter__`, which can tell of it."""
        return True

    def __iter__(self) -> Iterator[Any]:
        offset = self.base_offset
        fault = self._judge()
        if fault is None:
            try:
                yield from super().__iter__()
                return
            except struct.error as error:
                fault = UnreadableRecord(f"The record at offset {offset} cannot be read: {error}")
        yield _unreadable(offset, fault, size_in_bytes=self.size_in_bytes)

    def _judge(self) -> Exception | None:
        what = f"The message set of format {self.magic} at offset {self.base_offset}"
        if not super().validate_crc():
            return DamagedRecord(f"{what} has a wrong checksum")
        if self.compression_type:
            return UnreadableRecord(f"{what} is compressed, which is read from format 2 on only")
        if self.size_in_bytes > MAX_RECORD_BYTES:
            return UnreadableRecord(f"{what} has {self.size_in_bytes} bytes, more than {MAX_RECORD_BYTES}")
        return None


def _unreadable(
    offset: int, error: Exception, *, first_offset: int | None = None, size_in_bytes: int = 0
) -> DefaultRecord:
    value = Unreadable()
    value.error = error
    value.first_offset = offset if first_offset is None else first_offset
    return DefaultRecord(size_in_bytes, offset, -1, 0, None, value, [])
