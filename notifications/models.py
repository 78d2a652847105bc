"""Notifications: what a user is told about an order."""

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from events.timestamps import now
from orders.events import ORDER_EVENT_TYPES


class Notification(models.Model):
    """Names its user and order by id alone: it may tell of ones that this database has never heard of."""

    user_id = models.BigIntegerField()
    order_id = models.BigIntegerField()
    event_id = models.UUIDField(unique=True, help_text="The event it was made of; what makes it the only one.")
    type = models.CharField(max_length=15, choices=[(name, name) for name in ORDER_EVENT_TYPES])
    message = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=now)
    read_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(type__in=ORDER_EVENT_TYPES), name="notification_type_known")]
        indexes = [
            models.Index(fields=["user_id", "-id"], name="notification_newest_first"),
            models.Index(fields=["order_id"], name="notification_of_order"),
            # For events per minute: a range of times costs a few pages, and keeping it next to nothing.
            BrinIndex(fields=["created_at"], name="notification_created_at", autosummarize=True),
        ]

    def __str__(self) -> str:
        return f"{self.type} for user {self.user_id}"
