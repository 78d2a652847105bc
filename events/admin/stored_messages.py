"""Admin of rows that hold a message. A row's page shows the beginning of its message as text."""

import codecs
from typing import Any

import msgspec
from django.contrib import admin
from django.db import models
from django.db.models.functions import Length, Substr
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy

from events.admin.read_only import ReadOnlyAdmin, preformatted
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter, OutboxEvent
from events.subscriptions import secret_members_of
from events.wire.foreign_text import TEXT_LIMIT_CHARS, cut
from events.wire.headers import unpack
from events.wire.secret_members import masked

MAX_SHOWN_BYTES = 64 * 1024
"""Largest number of bytes of a key or value that a page shows."""


class MessageAdmin(ReadOnlyAdmin):
    """Base class for the admin of rows that hold a message. Lists do not load the messages, of up to 2 MiB each."""

    readonly_fields: tuple[str, ...] = ("key_text", "value_text", "headers_text")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("key", "value", "headers")

    @admin.display(description=gettext_lazy("key"))
    def key_text(self, row: OutboxEvent | DeadLetter) -> SafeString:
        stored, size = _beginning(row, "key")
        return preformatted(_text(stored, size=size))

    @admin.display(description=gettext_lazy("value"))
    def value_text(self, row: OutboxEvent | DeadLetter) -> SafeString:
        stored, size = _beginning(row, "value")
        secret = secret_members_of(row.topic)
        if not secret or stored is None:
            return preformatted(_pretty(stored, size))
        try:
            shown = masked(bytes(stored), secret)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            # The value is no JSON object, perhaps because the database has cut it. The secret may be anywhere in it.
            return preformatted(
                gettext("(not shown, because it may hold a secret; size in bytes: %(size)d)") % {"size": size}
            )
        return preformatted(_pretty(shown, len(shown)))

    @admin.display(description=gettext_lazy("headers"))
    def headers_text(self, row: OutboxEvent | DeadLetter) -> SafeString:
        (size,) = type(row).objects.values_list(Length("headers")).get(pk=row.pk)
        if size > MAX_MESSAGE_BYTES:
            return preformatted(gettext("(%(size)d bytes, too many to be shown)") % {"size": size})
        return preformatted(
            "\n".join(f"{cut(name)}: {_text(value, limit=TEXT_LIMIT_CHARS)}" for name, value in unpack(row.headers))
        )


def _beginning(row: OutboxEvent | DeadLetter, field: str) -> tuple[bytes | None, int | None]:
    """Return the field, cut to `MAX_SHOWN_BYTES` by the database, and the size of the whole field in bytes.

    Both are None if the field is NULL.
    """
    first = Substr(field, 1, MAX_SHOWN_BYTES, output_field=models.BinaryField())
    stored, size = type(row).objects.values_list(first, Length(field)).get(pk=row.pk)
    return stored, size


def _pretty(stored: bytes | memoryview | None, size: int | None) -> str:
    """Return a stored value as text: JSON with indentation, its numbers and strings unchanged; others as `_text` does.

    JSON gets no indentation if the database has cut it, or if the indented text is longer than `MAX_SHOWN_BYTES`.
    """
    if stored is None or len(stored) != size:
        return _text(stored, size=size)
    try:
        indented = msgspec.json.format(bytes(stored).decode().encode(), indent=2)
        return _text(indented if len(indented) <= MAX_SHOWN_BYTES else stored)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return _text(stored)


def _text(stored: bytes | memoryview | None, *, size: int | None = None, limit: int = MAX_SHOWN_BYTES) -> str:
    """Return the first `limit` bytes as text if they are printable, else as hexadecimal digits; "(null)" for None.

    If the value has more bytes than `limit`, a note with its size follows. `size` is the size of the whole value in
    bytes, if the database has cut it. By default, `stored` is the whole value.
    """
    if stored is None:
        return "(null)"
    size = size or len(stored)
    shown = bytes(stored[:limit])
    try:
        # The limit may cut the last character.
        text = codecs.getincrementaldecoder("utf-8")().decode(shown, final=size <= limit)
    except UnicodeDecodeError:
        text = ""
    readable = text and all(letter.isprintable() or letter in "\r\n\t" for letter in text)
    said = text if readable or not shown else f"0x{shown.hex()}"
    if size > limit:
        said += "\n" + gettext("(the first %(shown)d of %(size)d bytes)") % {"shown": limit, "size": size}
    return said
