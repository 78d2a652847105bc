"""Operations on notifications."""

from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

import msgspec
from django.conf import settings
from django.db import transaction

from events.outbox import recording as outbox
from events.wire.headers import cloud_event_headers, pack
from events.wire.messages import Message
from events.wire.timestamps import now, rfc3339
from notifications.events import NOTIFICATION_READ, NotificationRead
from notifications.models import Notification


class Reading(NamedTuple):
    """A notification that is marked as read, and the events of this change; no events if it was marked before."""

    notification: Notification
    events: list[Message]


@transaction.atomic
def read_notification(*, notification_id: int, user_id: int) -> Reading:
    """Mark a notification as read, and return it with the events to publish. A repeated call changes nothing.

    Raise Notification.DoesNotExist if there is no such notification, or if it does not belong to `user_id`.
    """
    notification = Notification.objects.select_for_update().get(pk=notification_id, user_id=user_id)
    if notification.read_at is not None:
        return Reading(notification, events=[])
    notification.read_at = now()
    notification.save(update_fields=["read_at"])
    return Reading(notification, events=[_record_reading(notification, notification.read_at)])


def _record_reading(notification: Notification, read_at: datetime) -> Message:
    event_id = uuid4()
    return outbox.record(
        Message(
            event_id=event_id,
            event_type=NOTIFICATION_READ,
            topic=settings.NOTIFICATION_EVENTS_TOPIC,
            key=str(notification.pk).encode(),
            value=msgspec.json.encode(
                NotificationRead(
                    event_id=event_id,
                    event_type=NOTIFICATION_READ,
                    timestamp=rfc3339(read_at),
                    notification_id=notification.pk,
                    user_id=notification.user_id,
                )
            ),
            headers=pack(
                cloud_event_headers(
                    event_id=event_id,
                    event_type=NOTIFICATION_READ,
                    source="/notifications",
                    time=read_at,
                    subject=str(notification.pk),
                )
            ),
            created_at=read_at,
        )
    )
