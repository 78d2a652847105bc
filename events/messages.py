"""A message on its way to Kafka."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Message(NamedTuple):
    """What is recorded in the outbox, and sent from there byte for byte.

    Each field has the name of a column of `OutboxEvent`, which the statement that records a message relies on.

    No model, because every change of an order makes one: a model's instance takes 0.03 ms of CPU more.
    """

    event_id: UUID
    event_type: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: bytes
    """See `events.headers`."""
    created_at: datetime
    partition: int | None = None
    """None: by key."""
    stream: str | None = None
    """Messages of one stream leave in the order of their sequence: 1, 2, 3 ..."""
    sequence: int | None = None
    dead_letter_id: int | None = None
    """Of which this message is a replay."""

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}"

    @property
    def size(self) -> int:
        """Bytes of what is sent, roughly."""
        return len(self.key or b"") + len(self.value or b"") + len(self.headers)
