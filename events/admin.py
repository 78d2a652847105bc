from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from events.headers import unpack
from events.models import DeadLetter, OutboxEvent


class ReadOnlyAdmin(ModelAdmin):
    """What the pipeline wrote is for looking at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

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
class OutboxEventAdmin(ReadOnlyAdmin):
    list_display = ("event_id", "event_type", "stream", "sequence", "created_at", "published_at", "parked_at")
    list_filter = ("event_type", "published_path", ("published_at", admin.EmptyFieldListFilter))
    search_fields = ("event_id", "stream")
    search_help_text = "An event id, or a stream such as order-1"
    ordering = ("-id",)
    fields = (
        ("event_id", "event_type"),
        ("topic", "partition"),
        ("stream", "sequence"),
        "key_text",
        "value_text",
        "headers_text",
        "created_at",
        ("published_at", "published_path"),
        ("published_partition", "published_offset"),
        ("parked_at", "parked_reason"),
    )
    readonly_fields = ("key_text", "value_text", "headers_text")


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "state", "error_class", "error_message", "created_at")
    list_filter = ("state", "topic", "error_class")
    search_fields = ("event_id", "error_message")
    ordering = ("-id",)
    fields = (
        ("topic", "group"),
        ("partition", "offset"),
        ("state", "created_at"),
        "closed_at",
        "error_class",
        "error_message",
        "stacktrace",
        "event_id",
        "key_text",
        "value_text",
        "headers_text",
    )
    readonly_fields = ("key_text", "value_text", "headers_text")
