"""Notifications to users about their orders, and their delivery by e-mail."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from django.contrib.auth.models import User
from django.contrib.postgres.indexes import BrinIndex
from django.db import connection, models, transaction
from django.db.models import Q
from django.db.models.functions import Upper
from django.utils.translation import gettext, gettext_lazy

from events.wire.timestamps import now
from events.work.models import LeasedWork, LeasedWorkQuerySet
from orders.events import ORDER_EVENT_TYPES, OrderEventType


class NewNotification(msgspec.Struct, frozen=True):
    """A notification that has no row yet. Its fields have the names of the columns, but `occurred_at` has no column.

    It is no model instance, because that costs ten times the CPU (docs/performance.md).
    """

    user_id: int
    order_id: int
    event_id: UUID
    type: OrderEventType
    message: str
    occurred_at: datetime
    """The time of the event."""


class EmailTexts(msgspec.Struct, frozen=True):
    """The values from which `insert_new` records e-mails. An e-mail's text is the notification's message and a link."""

    subjects: Mapping[OrderEventType, str]
    """The subject for each type of event."""
    order_link: str
    """Beginning of the link to an order. The order's id is appended to it."""
    max_age: timedelta
    """An event of this age or older gets no e-mail."""


class NotificationManager(models.Manager["Notification"]):
    def insert_new(self, rows: Sequence[NewNotification], *, emails: EmailTexts | None = None) -> list[UUID]:
        """Insert the rows whose event has no notification yet, and return their event ids.

        All rows get the current time, and `read_at` and the id keep their defaults. With `emails`, each new
        notification gets an e-mail delivery if its event is recent, and its user is active, has an address and has not
        opted out.

        `bulk_create` cannot tell which rows were new, so this is SQL. The rows are one parameter in JSON, because
        psycopg2 adapts the values of an array one by one.
        """
        moment = now()
        parameters: dict[str, Any] = {"now": moment, "rows": _encoder.encode(rows).decode()}
        statement = _INSERT
        # Events of an old backlog get no e-mails, so the statement without e-mails is enough for them.
        if emails is not None and any(row.occurred_at > moment - emails.max_age for row in rows):
            statement = _INSERT_WITH_EMAILS
            parameters |= {
                "subjects": _encoder.encode(emails.subjects).decode(),
                "link": emails.order_link,
                "max_age": emails.max_age,
            }
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            if cursor.rowcount == len(rows):
                return [row.event_id for row in rows]
            return [event_id for (event_id,) in cursor.fetchall()]


_COLUMNS = "user_id, order_id, event_id, type, message"
_TYPED_COLUMNS = "user_id bigint, order_id bigint, event_id uuid, type text, message text"
_INSERT = f"""
    INSERT INTO notifications_notification ({_COLUMNS}, created_at)
    SELECT {_COLUMNS}, %(now)s FROM json_to_recordset(%(rows)s) AS new ({_TYPED_COLUMNS})
    ON CONFLICT DO NOTHING
    RETURNING event_id
    """  # noqa: S608 - it consists of constants
_INSERT_WITH_EMAILS = f"""
    WITH new AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(rows)s) AS new ({_TYPED_COLUMNS}, occurred_at timestamptz)
    ),
    inserted AS (
        INSERT INTO notifications_notification ({_COLUMNS}, created_at)
        SELECT {_COLUMNS}, %(now)s FROM new
        ON CONFLICT DO NOTHING
        RETURNING *
    ),
    emails AS (
        INSERT INTO notifications_emaildelivery (notification_id, address, subject, text, deadline_at)
        SELECT inserted.id, auth_user.email, %(subjects)s::json ->> inserted.type,
            inserted.message || E'\\n\\n' || %(link)s || inserted.order_id,
            least(new.occurred_at, %(now)s) + %(max_age)s
        FROM inserted JOIN new USING (event_id) JOIN auth_user ON auth_user.id = inserted.user_id
        WHERE new.occurred_at > %(now)s - %(max_age)s AND auth_user.is_active AND auth_user.email <> ''
            AND NOT EXISTS (SELECT FROM notifications_emailoptout WHERE user_id = inserted.user_id)
        -- A batch may contain an event twice.
        ON CONFLICT DO NOTHING
    )
    SELECT event_id FROM inserted
    """  # noqa: S608 - it consists of constants
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


class EmailOptOut(models.Model):
    """A user who wants no e-mails."""

    user = models.OneToOneField(User, primary_key=True, on_delete=models.CASCADE, related_name="email_opt_out")
    created_at = models.DateTimeField(default=now)

    def __str__(self) -> str:
        return gettext("user %(id)s wants no e-mails") % {"id": self.user_id}


class EmailDeliveryQuerySet(LeasedWorkQuerySet["EmailDelivery"]):
    @transaction.atomic
    def try_again(self, *, within: timedelta) -> int:
        """Make failed deliveries pending again, and return their number.

        Their new deadline is the current time plus `within`. Their messages are composed anew, because the user's
        address or the sender may have been corrected. The Message-ID stays the same.
        """
        self.failed().update(content=None)
        return super().try_again(within=within)


class EmailDelivery(LeasedWork):
    """The e-mail about one notification. `NotificationManager.insert_new` records it."""

    # The database has no foreign key constraint. Its check would cost as much as the rest of the INSERT, and one
    # statement makes both rows anyway.
    notification = models.OneToOneField(
        Notification, primary_key=True, on_delete=models.CASCADE, related_name="email", db_constraint=False
    )
    address = models.EmailField(help_text=gettext_lazy("The user's address at the first attempt."))
    subject = models.CharField(max_length=200)
    text = models.TextField()
    content = models.BinaryField(
        null=True, help_text=gettext_lazy("The message of the first attempt. All further attempts send the same bytes.")
    )

    objects: ClassVar[EmailDeliveryQuerySet] = EmailDeliveryQuerySet.as_manager()  # type: ignore[assignment]

    class Meta(LeasedWork.Meta):
        verbose_name = "e-mail"
        verbose_name_plural = "e-mails"
        permissions = [("send_again_emaildelivery", "Can send failed e-mails again")]
        indexes = [
            *LeasedWork.Meta.indexes,
            # For admin's search. Pending rows are not in the index, so that recording a notification costs no more.
            models.Index(Upper("address"), name="email_finished_address", condition=~Q(state="pending")),
        ]

    def __str__(self) -> str:
        return gettext("e-mail to %(address)s") % {"address": self.address}
