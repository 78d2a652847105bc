"""Records as they are read, also those that the client cannot read."""

from typing import Any

from kafka.consumer.fetcher import ConsumerRecord as Record
from kafka.errors import KafkaError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch, decode_varint

__all__ = ["Record", "Unreadable", "UnreadableRecord"]


class UnreadableRecord(Exception):
    """The client cannot make sense of a record's bytes."""


class Unreadable(bytes):
    """Stands in the place of the value of a record that could not be read; of that record only the position is true."""

    error: UnreadableRecord


class ForgivingRecordBatch(DefaultRecordBatch):
    """A batch that yields what cannot be read as `Unreadable` values, each at its offset, and reads on behind it.

    The original gives up for good: one header name that is not UTF-8 would hide all that stands behind it.
    """

    _header_data: tuple[Any, ...]
    _pos: int
    _damage: str | None = None
    _lost = 0

    def validate_crc(self) -> bool:
        if super().validate_crc():
            return True
        self._damage = f"The record batch at offset {self.base_offset} has a wrong checksum"
        # Its flags might say that it is compressed, or not for us. The checksum itself stands before them.
        self._header_data = (*self._header_data[:5], 0, *self._header_data[6:])
        # Where not even its length can be believed, the client has to give up.
        return 0 <= self.last_offset_delta < self.size_in_bytes

    def __iter__(self) -> Any:
        try:
            return super().__iter__()
        except Exception as error:  # noqa: BLE001 - the decompressing libraries raise whatever they like
            self._damage = f"The record batch at offset {self.base_offset} cannot be decompressed: {error!r}"
            return self

    def __next__(self) -> Any:
        if self._damage is None:
            return super().__next__()
        if self._lost > self.last_offset_delta:
            raise StopIteration
        self._lost += 1
        return _unreadable(self.base_offset + self._lost - 1, self._damage)

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except (ValueError, IndexError, KafkaError) as error:
            length, start = decode_varint(self._buffer, self._pos)
            if length <= 0 or start + length > len(self._buffer):
                raise
            self._pos = start + length
            return _unreadable(self.base_offset + self._next_record_index, f"The record cannot be read: {error!r}")


def _unreadable(offset: int, reason: str) -> DefaultRecord:
    value = Unreadable()
    value.error = UnreadableRecord(reason)
    return DefaultRecord(0, offset, -1, 0, None, value, [])


# The client knows no better place for it.
memory_records.DefaultRecordBatch = ForgivingRecordBatch
