"""The anomalies that were found, and the time up to which sales were judged."""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy

from sales.events import ANOMALY_RULES


class SalesAnomaly(models.Model):
    """An interval whose sales are far from the usual for its time, found by one rule. Its row never changes."""

    class Rule(models.TextChoices):
        SURGE = "SURGE", gettext_lazy("Surge")
        CANCELLATIONS = "CANCELLATIONS", gettext_lazy("Wave of cancellations")
        SILENCE = "SILENCE", gettext_lazy("Silence")

    rule = models.CharField(max_length=13, choices=Rule)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(
        help_text=gettext_lazy("The interval ends before this time. A silence may have lasted longer."),
    )
    # It fits a sum of `SalesBucket.amount`. The two additional decimals are for a ratio.
    observed = models.DecimalField(
        max_digits=52,
        decimal_places=4,
        help_text=gettext_lazy("An amount, a ratio of cancelled to created orders, or a number of orders."),
    )
    usual = models.DecimalField(
        max_digits=52, decimal_places=4, help_text=gettext_lazy("This is the median of the same time in earlier weeks.")
    )
    detected_at = models.DateTimeField(help_text=gettext_lazy("This time is by the database's clock."))
    event_id = models.UUIDField(unique=True)

    class Meta:
        verbose_name = gettext_lazy("sales anomaly")
        verbose_name_plural = gettext_lazy("sales anomalies")
        constraints = [
            # The start identifies the interval: a silence that lasts keeps its start.
            models.UniqueConstraint(fields=["rule", "started_at"], name="sales_anomaly_once"),
            models.CheckConstraint(condition=Q(rule__in=ANOMALY_RULES), name="sales_anomaly_known_rule"),
            models.CheckConstraint(condition=Q(started_at__lt=F("ended_at")), name="sales_anomaly_ends_after_start"),
        ]
        indexes = [models.Index(fields=["ended_at"], name="sales_anomaly_ended_at")]

    def __str__(self) -> str:
        return f"{self.rule} {self.started_at:%Y-%m-%d %H:%M}"


class AnomalyWatch(models.Model):
    """The time up to which the watchers have judged sales.

    The table has one row. A watcher locks it while it judges.
    """

    id = models.SmallIntegerField(primary_key=True, db_default=1)
    judged_until = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="sales_anomaly_watch_one_row")]

    def __str__(self) -> str:
        return f"judged until {self.judged_until:%Y-%m-%d %H:%M}"
