"""Patches of kafka-python's readers of record batches: they skip unreadable records and read on.

They check every length that a record or a batch claims before they allocate memory for it.
The format is Kafka's, version 2: https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from django.template.defaultfilters import pluralize
from kafka.record import memory_records
from kafka.record.default_records import ControlRecord, DefaultRecord, DefaultRecordBatch, decode_varint
from kafka.record.legacy_records import LegacyRecordBatch

from events.kafka.decompression import MAX_BATCH_BYTES, decompress, name_of
from events.kafka.patches.headers import PackedHeaders, is_plain, read_field, read_headers
from events.kafka.records import (
    HEADER_BYTES,
    MAX_HEADERS,
    MAX_RECORD_BYTES,
    DamagedRecord,
    Unreadable,
    UnreadableRecord,
)


def install() -> None:
    """Make every consumer of this process read with `TolerantRecordBatch` and `TolerantLegacyBatch`.

    Reason: `MemoryRecords` looks up the classes of batches in its module, and a consumer cannot choose others.
    Upstream: no issue is known.
    Guard: tests/kafka/test_unreadable_records.py.
    It can go when both classes can go.
    """
    memory_records.DefaultRecordBatch = TolerantRecordBatch
    memory_records.LegacyRecordBatch = TolerantLegacyBatch


class TolerantRecordBatch(DefaultRecordBatch):
    """A batch that yields an `Unreadable` value for an unreadable record, and reads on.

    A fault of one record is reported at the record's offset. A fault of the rest of the batch is reported once, at the
    batch's last offset, because a batch may claim 2^31 records.

    Reason: the original stops for good: one header name that is not UTF-8 would hide every record behind it. It also
    trusts every length, and decompresses without a limit (docs/decisions/0006 and 0012).
    Upstream: no issue of kafka-python is known; https://github.com/aio-libs/aiokafka/issues/321 asks aiokafka for it.
    Guard: tests/kafka/test_unreadable_records.py, test_record_bounds.py and test_bombs.py.
    It can go when the client hands over unreadable records, and has bounds for decompression and allocation.
    """

    _buffer: bytes
    _decompressed: bool
    _header_data: tuple[Any, ...]
    _pos: int
    _fault: Exception | None = None
    """Why the rest of the batch cannot be read; None while it can."""
    _is_reported = False
    _next_delta = 0
    """Smallest offset that the next record may have, relative to the batch's first offset."""

    def __init__(self, buffer: memoryview) -> None:
        super().__init__(buffer)
        # A slice of bytes needs one copy, a slice of a memoryview a second one.
        self._buffer = bytes(buffer)

    def validate_crc(self) -> bool:
        if not super().validate_crc():
            self._fault = DamagedRecord(f"{self._describe()} has a wrong checksum")
            # Clear the attributes: damaged ones could mark the batch as compressed or as a control batch.
            self._header_data = (*self._header_data[:5], 0, *self._header_data[6:])
            # Without a plausible length the client cannot skip the batch.
            return 0 <= self.last_offset_delta < self.size_in_bytes
        if not 0 <= self.records_count <= self.last_offset_delta + 1:
            count = self.records_count
            self._fault = UnreadableRecord(f"{self._describe()} claims to have {count} record{pluralize(count)}")
            # The last offset must not lie before the first, or the batch would be read again.
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
        except Exception as error:  # noqa: BLE001 - the libraries for decompression document no errors
            self._fault = UnreadableRecord(
                f"{self._describe()}, {_bytes(len(compressed))} of {name_of(self.compression_type)}, cannot be"
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
            left = _bytes(len(self._buffer) - self._pos)
            self._fault = UnreadableRecord(f"{self._describe()} has {left} behind its last record")
        if self._fault is None or self._is_reported:
            raise StopIteration
        self._is_reported = True
        if self.is_control_batch:
            return None
        # It counts with the largest size, because decompression may have taken as long: the poll ends after it.
        return _unreadable(
            self.base_offset + self.last_offset_delta,
            self._fault,
            first_offset=self.base_offset + self._next_delta,
            size_in_bytes=MAX_BATCH_BYTES,
        )

    def _describe(self) -> str:
        return f"The record batch at offsets {self.base_offset} to {self.base_offset + self.last_offset_delta}"

    @cached_property
    def _of_batch(self) -> tuple[int, int, int, int, Any]:
        """What `_read_msg` needs of the batch's header. It is read once, because each property decodes it again."""
        return (
            self.base_offset,
            self.last_offset_delta,
            self.timestamp_type,
            self.max_timestamp if self.timestamp_type else self.first_timestamp,
            ControlRecord if self.is_control_batch else DefaultRecord,
        )

    def _read_msg(self) -> Any:
        """Return the next record, with an `Unreadable` value if only this record cannot be read.

        Return None for an unreadable control record. Raises ValueError or IndexError if the rest of the
        batch cannot be read.
        """
        buffer = self._buffer
        base_offset, last_offset_delta, timestamp_type, base_timestamp, make = self._of_batch
        length, start = decode_varint(buffer, self._pos)
        end = start + length
        if not start < end <= len(buffer):
            raise ValueError(f"a record claims {_bytes(length)}, of {len(buffer) - start} that are there")
        self._pos = end
        offset_delta = self._next_delta
        try:
            # The first byte has the attributes, which are unused in this version of the format.
            timestamp_delta, at = decode_varint(buffer, start + 1)
            claimed_delta, at = decode_varint(buffer, at)
            if not offset_delta <= claimed_delta <= last_offset_delta:
                raise ValueError(f"it claims offset {base_offset + claimed_delta}")
            offset_delta = claimed_delta
            if length > MAX_RECORD_BYTES:
                raise ValueError(f"it has {length} bytes, more than {MAX_RECORD_BYTES}")
            key, at = read_field(buffer, at, end)
            value, at = read_field(buffer, at, end)
            header_count, at = decode_varint(buffer, at)
            if not 0 <= header_count <= MAX_HEADERS:
                raise ValueError(f"it has {header_count} headers, more than {MAX_HEADERS}")
            packed = buffer[at:end]
            headers: Any = PackedHeaders(packed, header_count)
            if at > end or not is_plain(packed, header_count):
                headers, at = read_headers(buffer, at, end, header_count)
                if at != end:
                    raise ValueError(f"it has {_bytes(length)}, and its fields have {at - start}")
            record = make(
                length + HEADER_BYTES * header_count,
                base_offset + offset_delta,
                base_timestamp if timestamp_type else base_timestamp + timestamp_delta,
                timestamp_type,
                key,
                value,
                headers,
            )
        except (ValueError, IndexError, TypeError, struct.error) as error:  # The last two only of a control record.
            offset = base_offset + offset_delta
            reason = UnreadableRecord(f"The record cannot be read: {error}")
            record = None if self.is_control_batch else _unreadable(offset, reason, size_in_bytes=length)
        self._next_delta = offset_delta + 1
        return record


def _bytes(size: int) -> str:
    return f"{size} byte{pluralize(size)}"


class TolerantLegacyBatch(LegacyRecordBatch):
    """A message set of the formats before Kafka 0.11. It holds one record unless it is compressed.

    A compressed set yields one record with an `Unreadable` value. Kafka 4 no longer has such sets, and their reader
    would need checks of its own, because it follows nested sets and trusts the lengths that they claim.

    Reason, upstream, and when it can go: as for `TolerantRecordBatch`.
    Guard: tests/kafka/test_record_bounds.py.
    """

    def validate_crc(self) -> bool:
        """Return True, so that the client reads on. `__iter__` checks the checksum and reports a wrong one."""
        return True

    def __iter__(self) -> Iterator[Any]:
        offset = self.base_offset
        fault = self._find_fault()
        if fault is None:
            try:
                yield from super().__iter__()
                return
            except struct.error as error:
                fault = UnreadableRecord(f"The record at offset {offset} cannot be read: {error}")
        yield _unreadable(offset, fault, size_in_bytes=self.size_in_bytes)

    def _find_fault(self) -> Exception | None:
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
