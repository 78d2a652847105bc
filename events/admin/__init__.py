from typing import Any

import msgspec
from django.contrib import admin
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.db.models.functions import Length, Substr
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy
from unfold.decorators import action

from events.admin.actions import Refused, RowAction, RowActionsAdmin
from events.admin.large_tables import EstimatingPaginator, NewestValuesFilter
from events.consuming.dead_letters import NotOpen, dismiss
from events.consuming.replay import replay
from events.foreign_text import LIMIT, cut
from events.headers import unpack
from events.identifiers import id_or_none, uuid_or_none
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter, OutboxEvent
from events.outbox import recording as outbox
from events.timestamps import now

SHOWN = 64 * 1024
"""Bytes of a message that are shown."""


class ReadOnlyAdmin(RowActionsAdmin):
    """What the system wrote is for looking at, in lists of any length."""

    paginator = EstimatingPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    # Any other order than the one that has an index reads every row.
    sortable_by = ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse lookups of bytes and arrays, which an address cannot spell."""
        field = next((field for field in self.opts.fields if field.name == lookup.partition("__")[0]), None)
        return not isinstance(field, models.BinaryField | ArrayField) and super().lookup_allowed(lookup, value, request)

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        """Those of `rows` that a search for `term` shows, found by an index."""
        raise NotImplementedError

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        term = search_term.strip()
        return self.find(queryset, term) if term else queryset, False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class MessageAdmin(ReadOnlyAdmin):
    """Rows that hold a message. Lists leave out its bytes, which may be a mebibyte each."""

    readonly_fields: tuple[str, ...] = ("key_text", "value_text", "headers_text")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("key", "value", "headers")

    @admin.display(description=gettext_lazy("key"))
    def key_text(self, row: OutboxEvent | DeadLetter) -> SafeString:
        stored, size = _beginning(row, "key")
        return preformatted(_text(stored, size=size))

    @admin.display(description=gettext_lazy("value"))
    def value_text(self, row: OutboxEvent | DeadLetter) -> SafeString:
        return preformatted(_pretty(*_beginning(row, "value")))

    @admin.display(description=gettext_lazy("headers"))
    def headers_text(self, row: OutboxEvent | DeadLetter) -> SafeString:
        (size,) = type(row).objects.values_list(Length("headers")).get(pk=row.pk)
        if size > MAX_MESSAGE_BYTES:
            return preformatted(gettext("(%(size)d bytes, too many to be shown)") % {"size": size})
        return preformatted(
            "\n".join(f"{cut(name)}: {_text(value, limit=LIMIT)}" for name, value in unpack(row.headers))
        )


def badge(text: object, colour: str) -> str:
    """`colour` is one of Unfold's: success, info, warning, danger, or none."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "variant": colour})


def preformatted(text: str) -> SafeString:
    return format_html('<pre class="message">{}</pre>', text)


def _beginning(row: OutboxEvent | DeadLetter, field: str) -> tuple[bytes | None, int | None]:
    """Return the first bytes of what is stored there, which the database cuts off, and how many there are."""
    first = Substr(field, 1, SHOWN, output_field=models.BinaryField())
    stored, size = type(row).objects.values_list(first, Length(field)).get(pk=row.pk)
    return stored, size


def _pretty(stored: bytes | memoryview | None, size: int | None) -> str:
    """JSON with its own spellings, in lines; anything else as it is."""
    if stored is None or len(stored) != size:
        return _text(stored, size=size)
    try:
        return _text(msgspec.json.format(bytes(stored).decode().encode(), indent=2))
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return _text(stored)


def _text(stored: bytes | memoryview | None, *, size: int | None = None, limit: int = SHOWN) -> str:
    """Text as it is, and anything else as hexadecimal digits; the first `limit` bytes. `size` is that before a cut."""
    if stored is None:
        return "(null)"
    size = size or len(stored)
    shown = bytes(stored[:limit])
    try:
        text = shown.decode(errors="strict" if size <= limit else "ignore")
    except UnicodeDecodeError:
        text = ""
    readable = text and all(letter.isprintable() or letter in "\r\n\t" for letter in text)
    said = text if readable or not shown else f"0x{shown.hex()}"
    if size > limit:
        said += "\n" + gettext("(the first %(shown)d of %(size)d bytes)") % {"shown": limit, "size": size}
    return said


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


def send_again(row_id: int) -> tuple[OutboxEvent, str]:
    row = OutboxEvent.objects.select_for_update().defer("key", "value", "headers").get(pk=row_id)
    if not outbox.send_again([row.event_id]):
        raise Refused(gettext("%s is pending already.") % row)
    return row, "Send again."


SEND_AGAIN = RowAction(
    question=gettext_lazy("Send these messages again, under their own event ids? Consumers recognise the repeats."),
    button=gettext_lazy("Send again"),
    done=gettext_lazy("Messages that the relay sends again: %d."),
    do=send_again,
)


@admin.register(OutboxEvent)
class OutboxEventAdmin(MessageAdmin):
    list_display = ("event_id", "event_type", "stream", "sequence", "state", "created_at", "published_at")
    list_filter = (OutboxStateFilter, ("event_type", NewestValuesFilter))
    search_fields = ("event_id", "stream")
    search_help_text = gettext_lazy("An event id, or a stream such as order-1")
    ordering = ("-id",)
    actions = ("send_selected_again",)
    actions_detail = ("send_this_again",)
    readonly_fields = (*MessageAdmin.readonly_fields, "state")
    fields = (
        ("event_id", "event_type"),
        ("state", "dead_letter"),
        ("topic", "partition"),
        ("stream", "sequence"),
        ("created_at", "recorded_at", "published_at"),
        ("published_path", "published_partition", "published_offset"),
        ("parked_at", "parked_reason"),
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

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: OutboxEvent) -> str:
        state = "parked" if row.parked_at else "published" if row.published_at else "pending"
        return badge(*OUTBOX_STATES[state])

    def has_send_again_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("events.send_again_outboxevent")

    @admin.action(description=gettext_lazy("Send selected messages again"), permissions=["send_again"])
    def send_selected_again(self, request: HttpRequest, rows: models.QuerySet[OutboxEvent]) -> HttpResponse | None:
        return self.offer(request, SEND_AGAIN, rows=rows)

    @action(description=gettext_lazy("Send again"), url_path="send-again", permissions=["send_again"])
    def send_this_again(self, request: HttpRequest, object_id: str) -> HttpResponse | None:
        return self.offer(request, SEND_AGAIN, rows=self.one(request, object_id), object_id=object_id)


def replay_letter(letter_id: int) -> tuple[DeadLetter, str]:
    outcome = replay(letter_id=letter_id)
    if outcome.refusal:
        raise Refused(outcome.refusal)
    return outcome.letter, f"Replay {outcome.letter.replay_count}."


def dismiss_letter(letter_id: int) -> tuple[DeadLetter, str]:
    try:
        return dismiss(letter_id=letter_id), "Dismissed."
    except NotOpen as error:
        raise Refused(str(error)) from error


REPLAY = RowAction(
    question=gettext_lazy(
        "Send these messages to their topic again? Each letter is closed once a consumer has handled its message."
    ),
    button=gettext_lazy("Replay"),
    done=gettext_lazy("Replayed %d. Each is closed once it is handled."),
    do=replay_letter,
    for_more=gettext_lazy("All letters of a group: manage.py replay_dead_letters --group NAME"),
)
DISMISS = RowAction(
    question=gettext_lazy("Close these letters without handling their messages? This is for good."),
    button=gettext_lazy("Dismiss"),
    done=gettext_lazy("Dismissed %d."),
    do=dismiss_letter,
    for_more=gettext_lazy("All letters of a group: manage.py dismiss_dead_letters --group NAME"),
)


class GroupFilter(admin.AllValuesFieldListFilter):
    """Offers every group that has letters, also where another one made all of the newest."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        with connection.cursor() as cursor:
            # Of each group one index entry is read, where DISTINCT would read every row. See "loose index scan" in
            # PostgreSQL's wiki.
            cursor.execute(
                """
                WITH RECURSIVE known AS (
                    SELECT min("group") AS name FROM events_deadletter
                    UNION ALL
                    SELECT (SELECT min("group") FROM events_deadletter WHERE "group" > name) FROM known
                    WHERE name IS NOT NULL
                )
                SELECT name FROM known WHERE name IS NOT NULL
                """
            )
            self.lookup_choices: Any = [name for (name,) in cursor]


LETTER_COLOURS = {"open": "danger", "replayed": "success", "dismissed": ""}


@admin.register(DeadLetter)
class DeadLetterAdmin(MessageAdmin):
    list_display = ("position", "group", "state_label", "event_type", "reason", "replay_count", "age", "created_at")
    list_filter = (
        ("group", GroupFilter),
        "state",
        ("topic", NewestValuesFilter),
        ("partition", NewestValuesFilter),
        ("event_type", NewestValuesFilter),
        ("error_class", NewestValuesFilter),
    )
    search_fields = ("event_id",)
    search_help_text = gettext_lazy("An event id, or a letter's number")
    ordering = ("-id",)
    actions = ("replay_selected", "dismiss_selected")
    actions_detail = ("replay_this", "dismiss_this")
    readonly_fields = (*MessageAdmin.readonly_fields, "state_label", "stacktrace_text", "age")
    fields = (
        ("state_label", "age"),
        ("topic", "group"),
        ("partition", "offset"),
        ("created_at", "closed_at"),
        ("event_id", "event_type", "subject_id"),
        ("replay_count", "is_readable"),
        "error_class",
        "error_message",
        "value_text",
        "key_text",
        "headers_text",
        "stacktrace_text",
    )

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("key", "value", "headers", "stacktrace")

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        return rows.filter(pk=id_or_none(term))

    @admin.display(description=gettext_lazy("position"))
    def position(self, letter: DeadLetter) -> str:
        return str(letter)

    @admin.display(description=gettext_lazy("state"))
    def state_label(self, letter: DeadLetter) -> str:
        return badge(letter.get_state_display(), LETTER_COLOURS[letter.state])

    @admin.display(description=gettext_lazy("reason"))
    def reason(self, letter: DeadLetter) -> str:
        return f"{letter.error_class.rpartition('.')[2]}: {letter.error_message[:100]}"

    @admin.display(description=gettext_lazy("open for"))
    def age(self, letter: DeadLetter) -> str:
        """Until now, or until it was closed."""
        seconds = int(((letter.closed_at or now()) - letter.created_at).total_seconds())
        for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
            if seconds >= size:
                return f"{seconds // size} {unit}"
        return f"{max(0, seconds)} s"

    @admin.display(description=gettext_lazy("stack trace"))
    def stacktrace_text(self, letter: DeadLetter) -> SafeString:
        return preformatted(letter.stacktrace)

    def has_replay_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("events.replay_deadletter")

    def has_dismiss_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("events.dismiss_deadletter")

    @admin.action(description=gettext_lazy("Replay selected dead letters"), permissions=["replay"])
    def replay_selected(self, request: HttpRequest, rows: models.QuerySet[DeadLetter]) -> HttpResponse | None:
        return self.offer(request, REPLAY, rows=rows)

    @admin.action(description=gettext_lazy("Dismiss selected dead letters"), permissions=["dismiss"])
    def dismiss_selected(self, request: HttpRequest, rows: models.QuerySet[DeadLetter]) -> HttpResponse | None:
        return self.offer(request, DISMISS, rows=rows)

    @action(description=gettext_lazy("Replay"), url_path="replay", permissions=["replay"])
    def replay_this(self, request: HttpRequest, object_id: str) -> HttpResponse | None:
        return self.offer(request, REPLAY, rows=self.one(request, object_id), object_id=object_id)

    @action(description=gettext_lazy("Dismiss"), url_path="dismiss", permissions=["dismiss"])
    def dismiss_this(self, request: HttpRequest, object_id: str) -> HttpResponse | None:
        return self.offer(request, DISMISS, rows=self.one(request, object_id), object_id=object_id)
