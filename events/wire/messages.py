"""A message on its way to Kafka."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Message(NamedTuple):
    """A message as it is recorded in the outbox and sent, byte for byte.

    Each field has the name of a column of `OutboxEvent`, because the INSERT of `events.outbox.recording` uses these
    names. A message is a tuple because a model instance costs more CPU (docs/performance.md).
    """

    event_id: UUID
    event_type: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: bytes
    """The headers as `events.wire.headers.pack` encodes them."""
    created_at: datetime
    partition: int | None = None
    """Partition to send to. If it is None, or if the topic does not have it, the key decides."""
    stream: str | None = None
    """Name of the stream. Messages of one stream are sent in the order of their sequence: 1, 2, 3 ..."""
    sequence: int | None = None
    dead_letter_id: int | None = None
    """Id of the dead letter that this message replays."""

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}"

    @property
    def size(self) -> int:
        """Number of bytes of key, value and packed headers: about the size on the wire."""
        return len(self.key or b"") + len(self.value or b"") + len(self.headers)
