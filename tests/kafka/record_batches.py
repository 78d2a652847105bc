"""Record batches in Kafka's format 2, made byte by byte. The header of a batch may claim false values."""

import gzip
import struct

import lz4.frame
import snappy
import zstandard
from crc32c import crc32c
from kafka.codec import snappy_encode
from kafka.record.util import encode_varint

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS = {
    "gzip": (GZIP, gzip.compress),
    "snappy": (SNAPPY, snappy.compress),
    "xerial": (SNAPPY, snappy_encode),
    "lz4": (LZ4, lz4.frame.compress),
    "zstd": (ZSTD, zstandard.ZstdCompressor().compress),
}
"""The number and the compressing function of each codec, by name."""
HEADER = struct.Struct(">qiibIhiqqqhii")
LENGTH_AT, CHECKSUM_AT, ATTRIBUTES_AT, COUNT_AT = 8, 17, 21, 57
NOW_MS = 1738232130123
XERIAL = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
"""First bytes of a stream of snappy blocks in the format of Java clients."""


def varint(number: int) -> bytes:
    encoded = bytearray()
    encode_varint(number, encoded.append)
    return bytes(encoded)


def field(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def record(value: bytes | None, *, delta: int = 0, key: bytes | None = b"1", headers: bytes = varint(0)) -> bytes:
    """Return a record at `delta` from its batch's first offset. `headers` begins with the number of the headers."""
    return framed(varint(delta) + field(key) + field(value) + headers)


def framed(content: bytes) -> bytes:
    """Return a record with `content` after the record's length, attributes and timestamp."""
    body = b"\0" + varint(0) + content
    return varint(len(body)) + body


def batch(
    *records: bytes, codec: str = "", offset: int = 0, count: int | None = None, last_delta: int | None = None
) -> bytes:
    """Return a batch of the records, compressed by `codec`. Its header claims `count` and `last_delta`.

    By default, `count` is the number of the records, and `last_delta` is `count - 1`, even if their deltas have gaps.
    """
    _, compress = CODECS[codec] if codec else (0, bytes)
    count = len(records) if count is None else count
    return compressed_batch(compress(b"".join(records)), codec=codec, offset=offset, count=count, last_delta=last_delta)


def compressed_batch(
    content: bytes, *, codec: str, offset: int = 0, count: int = 1, last_delta: int | None = None
) -> bytes:
    """Return a record batch with `content` as its records. The header claims that `codec` compressed them.

    The function does not compress `content`. An empty `codec` claims no compression. The header also claims that the
    batch has `count` records, and that the last one's offset is `offset + last_delta`. By default, `last_delta` is
    `count - 1`.
    """
    number, _ = CODECS[codec] if codec else (0, bytes)
    header = HEADER.pack(
        offset, 0, 0, 2, 0, number, count - 1 if last_delta is None else last_delta, NOW_MS, NOW_MS, -1, -1, -1, count
    )
    return bytes(signed(bytearray(header + content)))


def signed(changed: bytearray, *, compression: int | None = None) -> bytearray:
    """Correct length and checksum of a changed batch in place, and return it.

    With `compression`, let the batch claim the codec with this number.
    """
    if compression is not None:
        struct.pack_into(">h", changed, ATTRIBUTES_AT, compression)
    struct.pack_into(">i", changed, LENGTH_AT, len(changed) - LENGTH_AT - 4)
    struct.pack_into(">I", changed, CHECKSUM_AT, crc32c(bytes(changed[ATTRIBUTES_AT:])))
    return changed
