"""The headers of a record: checked when the record is read, and decoded only when a caller reads them.

An event of this project has up to ten headers. Decoding them would take half of the time of reading the event.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.template.defaultfilters import pluralize
from kafka.record.util import decode_varint

from events.wire.headers import Header


class PackedHeaders(Sequence[Header]):
    """The headers of a record as (name, value) pairs. Each access decodes them again.

    The decoding cannot fail, because `is_plain` has checked the bytes.
    """

    __slots__ = ("_count", "_packed")

    def __init__(self, packed: bytes, count: int) -> None:
        """Create the sequence from the bytes of `count` headers. `is_plain(packed, count)` must have returned True."""
        self._packed = packed
        self._count = count

    def may_have(self, name: str) -> bool:
        """Return False only if no header has this name. This is faster than a search of the decoded headers."""
        return name.encode() in self._packed

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Header]:
        return iter(read_headers(self._packed, 0, len(self._packed), self._count)[0])

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, PackedHeaders) else other)

    __hash__ = None  # type: ignore[assignment]  # Like a list.


def has_header(headers: Iterable[Header], wanted: str) -> bool:
    """Return whether one of `headers` is named `wanted`."""
    if isinstance(headers, PackedHeaders) and not headers.may_have(wanted):
        return False
    return any(name == wanted for name, _ in headers)


def is_plain(packed: bytes, count: int) -> bool:
    """Return whether `packed` is exactly `count` headers of ASCII bytes without null values, as most headers are.

    The check decodes nothing. If all bytes are ASCII, each length is a varint of one byte, and each name is UTF-8.
    """
    if not packed.isascii():
        return False
    at = 0
    try:
        for _ in range(count):
            name_length = packed[at]
            at += 1 + (name_length >> 1)
            value_length = packed[at]
            at += 1 + (value_length >> 1)
            if (name_length | value_length) & 1:  # A negative length.
                return False
    except IndexError:
        return False
    return at == len(packed)


def read_headers(buffer: bytes, at: int, end: int, count: int) -> tuple[list[Header], int]:
    """Return the `count` headers that begin at offset `at`, and the offset behind them.

    Raises ValueError or IndexError if the bytes before `end` are not such headers. A last header with a null value may
    reach beyond `end`, and bytes may be left before `end`, so compare the returned offset with `end`.
    """
    headers = []
    for _ in range(count):
        name, at = read_field(buffer, at, end)
        if name is None:
            raise ValueError("a header has no name")
        value, at = read_field(buffer, at, end)
        headers.append((name.decode(), value))
    return headers, at


def read_field(buffer: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    """Return the bytes of the field that begins at offset `at`, and the offset behind the field.

    A field has its length, which is a zigzag varint, and then its bytes. A field with a negative length has None
    instead of bytes. Lengths of one byte are decoded without a function call, because a record may have twenty of them.

    Raises ValueError or IndexError if the length cannot be read, or if the field's bytes reach beyond `end`. A field
    with None is not checked against `end`.
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
        raise ValueError(f"a part of it claims {length} byte{pluralize(length)}, of {end - at} that are there")
    return buffer[at:stop], stop
