"""Records as they are read, also those that the client cannot read, and the bounds that hold for them."""

from events.kafka.patches.group import Record
from events.kafka.sending import MAX_MESSAGE_BYTES
from events.troubles import Poison

__all__ = ["MAX_RECORD_BYTES", "DamagedRecord", "Record", "Unreadable", "UnreadableRecord"]

MAX_RECORD_BYTES = MAX_MESSAGE_BYTES - 32 * 1024
"""Key, value and headers of one record. Its dead letter's copy has further headers, and must fit into a message."""
MAX_HEADERS = 1_000
"""Headers of one record. Kafka knows no limit, and an empty header of 2 bytes takes 64 bytes of memory."""
HEADER_BYTES = 200
"""What a small header takes in memory, roughly."""


class UnreadableRecord(Poison):
    """The client cannot make sense of a record's bytes, or refuses them; they stand on the topic like this."""


class DamagedRecord(Exception):
    """A record's bytes do not have their checksum. They may be sound when they are fetched again."""


class Unreadable(bytes):
    """Stands in the place of the value of a record that could not be read; of that record only the position is true.

    One may stand for a whole batch, which it is the last record of, so that committing it leads behind the batch.
    """

    error: Exception
    first_offset: int
    """Of the batch that this stands for, or the record's own."""
