"""Decompress record batches within a bound, whatever size the compressed bytes claim."""

import gzip
import io
from collections.abc import Callable
from typing import IO, Protocol

import snappy
import zstandard
from lz4.frame import LZ4FrameFile

MAX_BATCH_BYTES = 32 * 1024 * 1024
"""Largest record batch after decompression, in bytes. A topic accepts 1 MiB of compressed bytes by default, and JSON
compresses to a tenth or a twentieth of its size."""
ZSTD_WINDOW_BYTES = 128 * 1024 * 1024
"""Largest window that a zstd frame may declare, in bytes.

The library reserves the window as address space before it decompresses. Producers at the highest compression level
declare this size even for small batches, and Java's clients accept no larger one.
"""
CHUNK_BYTES = 256 * 1024
XERIAL_HEADER = b"\x82SNAPPY\x00"
"""Magic bytes of a stream of snappy blocks in Java's format. Two version numbers of 4 bytes each follow."""
XERIAL_BLOCKS_AT = 16


class BatchTooLarge(Exception):
    """A batch has more than `MAX_BATCH_BYTES` after decompression."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_BATCH_BYTES} bytes come out of it")


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decompress(codec: int, compressed: memoryview) -> bytes:
    """Return the decompressed bytes. `codec` is the number in the attributes of a record batch.

    Raises:
        BatchTooLarge: more than `MAX_BATCH_BYTES` would come out.
        Exception: the bytes are damaged, or no codec has this number. Each library raises its own errors.
    """
    if codec == SNAPPY:
        return _read_snappy(compressed)
    if codec not in _READERS:
        raise ValueError("the codec is unknown")
    return _read(_READERS[codec](io.BytesIO(compressed)))


def name_of(codec: int) -> str:
    return _NAMES.get(codec, f"unknown codec {codec}")


def _read(reader: Reader) -> bytes:
    decompressed = io.BytesIO()  # `getvalue` makes no copy.
    while chunk := reader.read(CHUNK_BYTES):
        _require_room(decompressed.tell() + len(chunk))
        decompressed.write(chunk)
    return decompressed.getvalue()


def _read_snappy(compressed: memoryview) -> bytes:
    """Decompress one bare block or a stream of blocks. Check the declared length of each block first."""
    if compressed[: len(XERIAL_HEADER)] != XERIAL_HEADER:
        _require_room(_declared_length(compressed))
        return snappy.decompress(bytes(compressed))
    decompressed = io.BytesIO()
    at = XERIAL_BLOCKS_AT
    while at < len(compressed):
        length = int.from_bytes(compressed[at : at + 4], "big")
        block = compressed[at + 4 : at + 4 + length]
        at += 4 + length
        _require_room(decompressed.tell() + _declared_length(block))
        decompressed.write(snappy.decompress(bytes(block)))
    return decompressed.getvalue()


def _declared_length(block: memoryview) -> int:
    """Return the decompressed length at the start of a snappy block. Snappy refuses a block with another length."""
    length = 0
    for shift, byte in zip(range(0, 35, 7), block, strict=False):
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return length
    raise ValueError("a snappy block does not say how long it is")


def _require_room(length: int) -> None:
    if length > MAX_BATCH_BYTES:
        raise BatchTooLarge


GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
_NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
_READERS: dict[int, Callable[[IO[bytes]], Reader]] = {
    GZIP: lambda compressed: gzip.GzipFile(fileobj=compressed, mode="rb"),
    LZ4: LZ4FrameFile,
    ZSTD: lambda compressed: zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).stream_reader(
        compressed, read_across_frames=True
    ),
}
