"""Read-only pages of admin for the anomalies of sales."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.utils.translation import gettext_lazy

from events.admin.read_only import ReadOnlyAdmin, badge
from events.wire.identifiers import id_or_none, uuid_or_none
from sales.anomalies.models import SalesAnomaly
from sales.anomalies.showing import measure_text

RULE_COLOURS = {"SURGE": "info", "CANCELLATIONS": "warning", "SILENCE": "danger"}


@admin.register(SalesAnomaly)
class SalesAnomalyAdmin(ReadOnlyAdmin):
    list_display = ("id", "rule_label", "started_at", "ended_at", "observed_text", "usual_text", "detected_at")
    list_filter = ("rule",)
    search_fields = ("=id", "event_id")
    search_help_text = gettext_lazy("An anomaly's or an event's id")
    ordering = ("-id",)
    readonly_fields = ("rule_label", "observed_text", "usual_text")
    fields = (("rule_label", "started_at", "ended_at"), ("observed_text", "usual_text"), ("detected_at", "event_id"))

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        number = id_or_none(term)
        return rows.none() if number is None else rows.filter(pk=number)

    @admin.display(description=gettext_lazy("rule"))
    def rule_label(self, anomaly: SalesAnomaly) -> str:
        return badge(anomaly.get_rule_display(), RULE_COLOURS[anomaly.rule])

    @admin.display(description=gettext_lazy("observed"))
    def observed_text(self, anomaly: SalesAnomaly) -> str:
        return measure_text(anomaly, anomaly.observed)

    @admin.display(description=gettext_lazy("usual"))
    def usual_text(self, anomaly: SalesAnomaly) -> str:
        return measure_text(anomaly, anomaly.usual)
