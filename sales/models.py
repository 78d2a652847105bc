"""The read models that the group `sales` keeps, and its copies of the events of other programs.

Each row of a read model belongs to a generation. Readers see the live generation, and `rebuild_sales` makes the next
one beside it.
"""

from decimal import Context, Decimal

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from orders.events import ORDER_EVENT_TYPES

# Django finds the models of an app by this module.
from sales.anomalies.models import AnomalyWatch, SalesAnomaly  # noqa: F401

EVENT_TYPE_CHOICES = [(name, name) for name in ORDER_EVENT_TYPES]
GROUP = "sales"
"""The consumer group that keeps the read models."""
LIVE = "coalesce((SELECT live FROM sales_generations), 0)"
"""SQL expression for the number of the live generation, which is the version of the read models that readers see.

Use it in the same statement that reads the rows.
"""
AMOUNT_DIGITS = 50
"""Number of digits of a sum, 2 of them decimals. An event's amount has at most 28 digits, so 10^22 events fit."""
EXACT = Context(prec=AMOUNT_DIGITS)
"""Context for exact sums. The default context rounds to 28 digits, which a single amount may already have."""
ZERO = Decimal("0.00")


class Generations(models.Model):
    """The numbers of the live generation and of the one that a rebuild makes, in the table's only row.

    A generation is a version of the rows of the read models. Without this row, generation 0 is live. A transaction
    reads the table FOR SHARE before it adds to the read models. So a lock of the table in EXCLUSIVE mode waits for
    these transactions and keeps new ones out. See `sales.sums.rebuilding`.
    """

    id = models.SmallIntegerField(primary_key=True, db_default=1)
    live = models.BigIntegerField(help_text="Readers see this generation.")
    building = models.BigIntegerField(
        null=True, help_text="A rebuild makes this generation. New events are added to it, too."
    )
    latest = models.BigIntegerField(help_text="The highest number that a generation has had.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="sales_generations_one_row"),
            models.CheckConstraint(
                condition=Q(live__lte=models.F("latest")) & (Q(building=None) | Q(building__lte=models.F("latest"))),
                name="sales_generations_up_to_latest",
            ),
        ]

    def __str__(self) -> str:
        return f"generation {self.live}"


class SalesBucket(models.Model):
    """The number and the amount of one type of events in one minute of event time, from one partition.

    The partition is part of the key, so that consumers of different partitions never wait for the same row. A rebuild
    counts the events of all partitions in one row, with partition -1. Readers sum over partitions.
    """

    pk = models.CompositePrimaryKey("generation", "minute", "event_type", "partition")
    generation = models.BigIntegerField()
    minute = models.DateTimeField(help_text="The minute begins at this time, in UTC.")
    event_type = models.CharField(max_length=15, choices=EVENT_TYPE_CHOICES)
    partition = models.IntegerField(
        help_text="The events came from this partition. It is -1 for sums that a rebuild has made."
    )
    count = models.BigIntegerField()
    amount = models.DecimalField(max_digits=AMOUNT_DIGITS, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.event_type} {self.minute:%Y-%m-%d %H:%M}"


class CustomerSummary(models.Model):
    """The counts of one customer's orders and the amount paid, from the events of one partition.

    A rebuild counts the events of all partitions in one row, with partition -1. Readers sum over partitions. The user
    is a plain id and no foreign key, because the event of another program may name any user.
    """

    pk = models.CompositePrimaryKey("generation", "user_id", "partition")
    generation = models.BigIntegerField()
    user_id = models.BigIntegerField()
    partition = models.IntegerField(
        help_text="The events came from this partition. It is -1 for sums that a rebuild has made."
    )
    orders = models.BigIntegerField()
    paid = models.BigIntegerField()
    cancelled = models.BigIntegerField()
    amount_paid = models.DecimalField(max_digits=AMOUNT_DIGITS, decimal_places=2)
    last_order_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "customer summaries"

    def __str__(self) -> str:
        return f"user {self.user_id}"


class ForeignEvent(models.Model):
    """An event of another program: neither the outbox nor the history had recorded it when the group handled it.

    `rebuild_sales` counts such an event from this table, because the history has no copy. The rows never change.
    """

    event_id = models.UUIDField(unique=True)
    event_type = models.CharField(max_length=15, choices=EVENT_TYPE_CHOICES)
    order_id = models.BigIntegerField()
    user_id = models.BigIntegerField()
    occurred_at = models.DateTimeField(help_text="The event carries this time.")
    amount = models.DecimalField(max_digits=AMOUNT_DIGITS, decimal_places=2)
    handled_at = models.DateTimeField(db_default=Now(), help_text="This time is by the database's clock.")

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}"
