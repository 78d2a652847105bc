"""Admin of the outbox: its messages with their delivery state, and the action to send them again."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy, ngettext_lazy

from events.admin.actions import Refused, RowAction
from events.admin.large_tables import NewestValuesFilter
from events.admin.read_only import badge, untranslated
from events.admin.stored_messages import MessageAdmin
from events.models import DeadLetter, OutboxEvent
from events.outbox import recording
from events.wire.identifiers import uuid_or_none


class OutboxStateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(state, OUTBOX_STATES[state][0]) for state in OUTBOX_STATES]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> models.QuerySet[Any]:
        if self.value() == "pending":
            return queryset.filter(published_at=None, parked_at=None)
        if self.value() == "parked":
            return queryset.filter(parked_at__isnull=False)
        if self.value() == "published":
            return queryset.filter(published_at__isnull=False)
        return queryset


OUTBOX_STATES = {
    "pending": (gettext_lazy("pending"), "warning"),
    "parked": (gettext_lazy("parked"), "danger"),
    "published": (gettext_lazy("published"), "success"),
}


PENDING_ALREADY = gettext_lazy("pending already")


def send_again(row_id: int) -> tuple[OutboxEvent, str]:
    """Make the row pending again. Return it and the text of its log entry. Raises Refused if it is pending already."""
    row = OutboxEvent.objects.select_for_update().defer("key", "value", "headers").get(pk=row_id)
    if not recording.send_again([row.event_id]):
        raise Refused(PENDING_ALREADY)
    return row, "Send again."


SEND_AGAIN = RowAction(
    name="send_again",
    label=gettext_lazy("Send again"),
    label_in_list=gettext_lazy("Send selected messages again"),
    question=ngettext_lazy(
        "Send this message again, under its own event id? Consumers recognise the repeat.",
        "Send these %(count)d messages again, under their own event ids? Consumers recognise the repeats.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be sent again", "%(count)d can be sent again", "count"),
    done=ngettext_lazy(
        "The relay sends %(count)d message again.", "The relay sends %(count)d messages again.", "count"
    ),
    refuse=lambda row: "" if row.published_at or row.parked_at else PENDING_ALREADY,
    do=send_again,
)


@admin.register(OutboxEvent)
class OutboxEventAdmin(MessageAdmin):
    list_display = ("event_id", "event_type", "stream", "sequence", "state", "created_at", "published_at")
    list_filter = (OutboxStateFilter, ("event_type", NewestValuesFilter))
    search_fields = ("event_id", "stream")
    search_help_text = gettext_lazy("An event id, or the whole name of a stream")
    ordering = ("-id",)
    row_actions = (SEND_AGAIN,)
    readonly_fields = (*MessageAdmin.readonly_fields, "state", "parked_because")
    fields = (
        ("event_id", "event_type"),
        ("state", "dead_letter"),
        ("topic", "partition"),
        ("stream", "sequence"),
        ("created_at", "recorded_at", "published_at"),
        ("published_path", "published_partition", "published_offset"),
        ("parked_at", "parked_because"),
        "key_text",
        "value_text",
        "headers_text",
    )

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        shown_of_letter = DeadLetter.objects.only("topic", "partition", "offset", "event_id")
        return super().get_queryset(request).prefetch_related(models.Prefetch("dead_letter", shown_of_letter))

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        return rows.filter(stream=term)

    def describe(self, row: OutboxEvent) -> list[str]:
        return [str(row), row.stream or row.topic, str(OUTBOX_STATES[_state(row)][0])]

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: OutboxEvent) -> str:
        return badge(*OUTBOX_STATES[_state(row)])

    @admin.display(description=gettext_lazy("parked reason"))
    def parked_because(self, row: OutboxEvent) -> SafeString:
        return untranslated(row.parked_reason)


def _state(row: OutboxEvent) -> str:
    """Return the row's state, a key of `OUTBOX_STATES`."""
    return "parked" if row.parked_at else "published" if row.published_at else "pending"
