"""The events of a foreign project's app, readings of electricity meters, for tests of `events` without the shop."""

from datetime import datetime
from uuid import UUID

import msgspec

from events.subscriptions import Topic, register_topic
from events.troubles import Poison

METER_READINGS = register_topic(
    Topic(
        setting="METER_READINGS_TOPIC",
        event_types=("METER_READ", "METER_MOVED"),
        subject="meter",
        stream_prefix="meter-",
    )
)


class MeterRead(msgspec.Struct, frozen=True, rename="camel"):
    event_id: UUID
    event_type: str
    timestamp: datetime
    meter: int
    value: int

    @property
    def stream(self) -> str:
        return f"meter-{self.meter}"

    @property
    def owner(self) -> None:
        return None


def decode(value: bytes | None) -> MeterRead:
    try:
        event = msgspec.json.decode(value or b"", type=MeterRead)
    except msgspec.DecodeError as error:
        raise Poison(str(error)) from error
    if event.event_type not in METER_READINGS.event_types:
        raise Poison(f"Unknown type {event.event_type}")
    return event
