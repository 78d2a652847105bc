from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q


class RequestCount(models.Model):
    """The number of requests of one client in its current window. See commerce.api.throttling."""

    client = models.CharField(
        max_length=100,
        primary_key=True,
        help_text="It names the limit, and the address or the user whose requests are counted.",
    )
    requests = models.PositiveBigIntegerField()
    ends_at = models.DateTimeField(db_index=True, help_text="The window ends at this time.")

    class Meta:
        db_table = "commerce_request_count"

    def __str__(self) -> str:
        return self.client


class AccountName(models.Model):
    """The folded name of an account, by which names are compared. See `fold` in commerce.accounts.names."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="+")
    folded = models.TextField()
    collides = models.BooleanField(
        default=False, help_text="Another account had the same folded name before folded names were unique."
    )

    class Meta:
        db_table = "commerce_account_name"
        constraints = [
            models.UniqueConstraint(fields=["folded"], condition=Q(collides=False), name="account_name_once")
        ]
        indexes = [models.Index(fields=["folded"], name="account_name_folded")]

    def __str__(self) -> str:
        return self.folded


class LagReading(models.Model):
    """The lag of the groups in one slot of time. See commerce.operations.lag_history."""

    slot = models.DateTimeField(primary_key=True, help_text="This is when it begins, by the database's clock.")
    lag = models.JSONField(null=True, help_text="Records by group. Null: Kafka was not read.")

    class Meta:
        db_table = "commerce_lag_reading"

    def __str__(self) -> str:
        return f"{self.slot:%H:%M:%S}"
