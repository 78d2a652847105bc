"""Records of a topic, the values that stand for unreadable records, and the limits of a record's size."""

from events.kafka.patches.group import Record
from events.kafka.sending import MAX_MESSAGE_BYTES
from events.troubles import Poison

__all__ = ["MAX_RECORD_BYTES", "DamagedRecord", "Record", "Unreadable", "UnreadableRecord"]

MAX_RECORD_BYTES = MAX_MESSAGE_BYTES - 32 * 1024
"""Largest record (key, value, headers), in bytes. The copy of its dead letter adds headers and must be sendable."""
MAX_HEADERS = 1_000
"""Largest number of headers of a record. Kafka has no limit, and an empty header of 2 bytes takes 64 in memory."""
HEADER_BYTES = 200
"""Approximate memory of a small header, in bytes."""


class UnreadableRecord(Poison):
    """The client cannot decode a record's bytes, or refuses them. Fetching the same bytes again would not help."""


class DamagedRecord(Exception):
    """A record's bytes do not match their checksum. They may be sound when the client fetches them again."""


class Unreadable(bytes):
    """The value of a record that could not be read. Of such a record, only the position is correct.

    The value may represent the rest of a batch. Its record then has the last offset of the batch, so that a commit
    skips the batch.
    """

    error: Exception
    first_offset: int
    """Offset of the first unreadable record. An `Unreadable` can stand for several, such as the rest of a batch."""
