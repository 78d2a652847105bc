"""Notifications to users about their orders."""

from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

import msgspec
from django.contrib.postgres.indexes import BrinIndex
from django.db import connection, models
from django.db.models import Q
from django.utils.translation import gettext, gettext_lazy

from events.wire.timestamps import now
from orders.events import ORDER_EVENT_TYPES, OrderEventType


class NewNotification(msgspec.Struct, frozen=True):
    """A notification that has no row yet. Its fields have the names of the columns.

    It is no model instance, because that costs ten times the CPU (docs/performance.md).
    """

    user_id: int
    order_id: int
    event_id: UUID
    type: OrderEventType
    message: str


class NotificationManager(models.Manager["Notification"]):
    def insert_new(self, rows: Sequence[NewNotification]) -> list[UUID]:
        """Insert the rows whose event has no notification yet, and return their event ids.

        All rows get the current time, and `read_at` and the id keep their defaults. `bulk_create` cannot tell which
        rows were new, so this is SQL. The rows are one parameter in JSON, because psycopg2 adapts the values of an
        array one by one.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO notifications_notification (user_id, order_id, event_id, type, message, created_at)
                SELECT new.*, %s
                FROM json_to_recordset(%s)
                    AS new (user_id bigint, order_id bigint, event_id uuid, type text, message text)
                ON CONFLICT DO NOTHING
                RETURNING event_id
                """,
                [now(), _encoder.encode(rows).decode()],
            )
            if cursor.rowcount == len(rows):
                return [row.event_id for row in rows]
            return [event_id for (event_id,) in cursor.fetchall()]


_encoder = msgspec.json.Encoder()


class Notification(models.Model):
    """A message to one user about one order.

    User and order are plain ids, not foreign keys: an event may name a user or an order that this database lacks.
    """

    user_id = models.BigIntegerField()
    order_id = models.BigIntegerField()
    event_id = models.UUIDField(
        unique=True,
        help_text=gettext_lazy("This notification reports that event. Each event has at most one notification."),
    )
    type = models.CharField(max_length=15, choices=[(name, name) for name in ORDER_EVENT_TYPES])
    message = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=now)
    read_at = models.DateTimeField(null=True)

    objects: ClassVar[NotificationManager] = NotificationManager()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(type__in=ORDER_EVENT_TYPES), name="notification_type_known")]
        indexes = [
            models.Index(fields=["user_id", "-id"], name="notification_newest_first"),
            models.Index(fields=["order_id"], name="notification_of_order"),
            # For events per minute. A BRIN index is cheap to maintain, and a range of times reads few pages.
            BrinIndex(fields=["created_at"], name="notification_created_at", autosummarize=True),
        ]

    def __str__(self) -> str:
        return gettext("%(type)s for user %(id)s") % {"type": self.type, "id": self.user_id}
