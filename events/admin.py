from typing import Any

from django.contrib import admin, messages
from django.db import models, transaction
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from events.headers import unpack
from events.models import DeadLetter, OutboxEvent
from events.replay import replay

REFUSALS_NAMED = 20
"""Messages have to fit into a session; of further refusals only the number is told."""


class ReadOnlyAdmin(ModelAdmin):
    """What the pipeline wrote is for looking at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class MessageAdmin(ReadOnlyAdmin):
    """Rows that hold a message. Lists leave out its bytes, which may be a mebibyte each."""

    readonly_fields = ("key_text", "value_text", "headers_text")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("key", "value", "headers")

    @admin.display(description="key")
    def key_text(self, row: OutboxEvent | DeadLetter) -> str:
        return _text(row.key)

    @admin.display(description="value")
    def value_text(self, row: OutboxEvent | DeadLetter) -> str:
        return _text(row.value)

    @admin.display(description="headers")
    def headers_text(self, row: OutboxEvent | DeadLetter) -> str:
        return "\n".join(f"{name}: {_text(value)}" for name, value in unpack(row.headers))


def _text(stored: bytes | memoryview | None) -> str:
    """Text as it is, and anything else as hexadecimal digits."""
    if stored is None:
        return "(null)"
    try:
        text = bytes(stored).decode()
    except UnicodeDecodeError:
        return f"0x{stored.hex()}"
    return text if all(letter.isprintable() or letter in "\r\n\t" for letter in text) else f"0x{stored.hex()}"


@admin.register(OutboxEvent)
class OutboxEventAdmin(MessageAdmin):
    list_display = ("event_id", "event_type", "stream", "sequence", "created_at", "published_at", "parked_at")
    list_filter = ("event_type", "published_path", ("published_at", admin.EmptyFieldListFilter))
    search_fields = ("event_id", "stream")
    search_help_text = "An event id, or a stream such as order-1"
    ordering = ("-id",)
    fields = (
        ("event_id", "event_type"),
        ("topic", "partition"),
        ("stream", "sequence"),
        "dead_letter",
        "key_text",
        "value_text",
        "headers_text",
        "created_at",
        ("published_at", "published_path"),
        ("published_partition", "published_offset"),
        ("parked_at", "parked_reason"),
    )


@admin.register(DeadLetter)
class DeadLetterAdmin(MessageAdmin):
    list_display = ("__str__", "event_type", "state", "replay_count", "error_class", "error_message", "created_at")
    list_filter = ("state", "topic", "error_class")
    search_fields = ("event_id", "=event_type", "error_message")
    ordering = ("-id",)
    actions = ("replay_selected",)
    fields = (
        ("topic", "group"),
        ("partition", "offset"),
        ("state", "replay_count"),
        ("created_at", "closed_at"),
        "error_class",
        "error_message",
        "stacktrace",
        ("event_id", "event_type"),
        "is_readable",
        "key_text",
        "value_text",
        "headers_text",
    )

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("events.replay_deadletter")

    @admin.action(description="Replay selected dead letters", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, selected: models.QuerySet[DeadLetter]) -> None:
        replayed = 0
        refusals = []
        for letter_id in selected.order_by("pk").values_list("pk", flat=True):
            # A replay and its log entry are one transaction.
            with transaction.atomic():
                outcome = replay(letter_id=letter_id)
                if outcome.refusal:
                    refusals.append(outcome.refusal)
                    continue
                self.log_change(request, outcome.letter, f"Replay {outcome.letter.replay_count}.")
                replayed += 1
        if replayed:
            self.message_user(request, f"Replayed {replayed}. Each is closed once it is handled.", messages.SUCCESS)
        for refusal in refusals[:REFUSALS_NAMED]:
            self.message_user(request, refusal, messages.WARNING)
        if len(refusals) > REFUSALS_NAMED:
            self.message_user(request, f"{len(refusals) - REFUSALS_NAMED} more are not replayed.", messages.WARNING)
