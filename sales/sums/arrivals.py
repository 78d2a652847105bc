"""An order event as it arrived on the topic."""

from datetime import datetime
from uuid import UUID

import msgspec

from orders.events import OrderEvent, decode


class Arrival(msgspec.Struct, frozen=True):
    """An order event, the partition that it came from, and the value of its record."""

    event: OrderEvent
    partition: int
    value: bytes

    @property
    def event_id(self) -> UUID:
        return self.event.event_id

    @property
    def event_type(self) -> str:
        return self.event.event_type

    @property
    def timestamp(self) -> datetime:
        return self.event.timestamp

    @property
    def stream(self) -> str:
        return self.event.stream

    @property
    def owner(self) -> int:
        return self.event.user_id


def decode_arrival(value: bytes | None, *, partition: int = 0) -> Arrival:
    """Return the order event in a record's value, together with the value and `partition`.

    Raises Poison if the value is not a valid order event.
    """
    event = decode(value)
    assert value is not None
    return Arrival(event, partition, value)
