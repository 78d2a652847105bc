"""The vocabulary of notifications: the type, the fields and the JSON of their event."""

from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from events.subscriptions import Topic, register_topic

NOTIFICATION_READ: Final = "NOTIFICATION_READ"
NOTIFICATION_EVENTS = register_topic(Topic(setting="NOTIFICATION_EVENTS_TOPIC", event_types=(NOTIFICATION_READ,)))


class NotificationRead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user's first reading of a notification."""

    event_id: UUID
    event_type: Literal["NOTIFICATION_READ"]
    timestamp: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    notification_id: int
    user_id: int
