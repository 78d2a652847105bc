"""Admin of dead letters: their list, and the actions to replay and to dismiss them."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import SEARCH_VAR
from django.db import connection, models
from django.db.models import Count, Max
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy, ngettext_lazy
from unfold.views import ChangeList

from events.admin.actions import Refused, RowAction
from events.admin.large_tables import NewestValuesFilter
from events.admin.read_only import badge, preformatted, untranslated
from events.admin.stored_messages import MessageAdmin
from events.consuming.attempts import reason_of, short_name
from events.consuming.dead_letters import NotOpen, dismiss
from events.consuming.replay import Obstacle, obstacle_to, replay, with_sizes
from events.models import OPEN_FIRST, DeadLetter
from events.templatetags.moments import duration
from events.wire.identifiers import id_or_none, uuid_or_none
from events.wire.timestamps import now

CLOSED = {"replayed": gettext_lazy("handled already"), "dismissed": gettext_lazy("dismissed already")}
"""Reasons why a closed dead letter cannot be changed, by its state."""
OBSTACLES = {
    Obstacle.CONTENT_UNKNOWN: gettext_lazy("content unknown: let the producer send it again"),
    Obstacle.TOO_LARGE: gettext_lazy("too large to be sent: let the producer send the event again, smaller"),
    Obstacle.LIMIT: gettext_lazy("replayed as often as allowed: let the producer send the event again, or dismiss it"),
}
"""Reasons why an open dead letter cannot be replayed, each with what to do instead."""


def refuse_replay(letter: Any) -> Any:
    """Return why a dead letter from `with_sizes` cannot be replayed; an empty text if it can."""
    return _reason(letter, obstacle_to(letter))


def _reason(letter: DeadLetter, obstacle: Obstacle | None) -> Any:
    if obstacle is None:
        return ""
    return CLOSED[letter.state] if obstacle == Obstacle.CLOSED else OBSTACLES[obstacle]


def replay_letter(letter_id: int) -> tuple[DeadLetter, str]:
    """Replay the dead letter. Return it and the text of its log entry. Raises Refused if it cannot be replayed."""
    outcome = replay(letter_id=letter_id)
    if outcome.obstacle:
        raise Refused(_reason(outcome.letter, outcome.obstacle))
    return outcome.letter, f"Replay {outcome.letter.replay_count}."


def dismiss_letter(letter_id: int) -> tuple[DeadLetter, str]:
    """Dismiss the dead letter. Return it and the text of its log entry. Raises Refused if the letter is not open."""
    try:
        return dismiss(letter_id=letter_id), "Dismissed."
    except NotOpen as error:
        raise Refused(CLOSED[error.letter.state]) from error


REPLAY = RowAction(
    name="replay",
    label=gettext_lazy("Replay"),
    label_in_list=gettext_lazy("Replay selected dead letters"),
    question=ngettext_lazy(
        "Send this message to its topic again? The letter is closed once a consumer has handled it.",
        "Send these %(count)d messages to their topics again? Each letter is closed once a consumer has handled its "
        "message.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be replayed", "%(count)d can be replayed", "count"),
    done=ngettext_lazy(
        "Replayed %(count)d dead letter. It is closed once a consumer has handled its message.",
        "Replayed %(count)d dead letters. Each is closed once a consumer has handled its message.",
        "count",
    ),
    refuse=refuse_replay,
    do=replay_letter,
    hint_above_limit=gettext_lazy("All letters of a group: manage.py replay_dead_letters --group NAME"),
)
DISMISS = RowAction(
    name="dismiss",
    label=gettext_lazy("Dismiss"),
    label_in_list=gettext_lazy("Dismiss selected dead letters"),
    question=ngettext_lazy(
        "Close this letter without handling its message? This cannot be undone.",
        "Close these %(count)d letters without handling their messages? This cannot be undone.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be dismissed", "%(count)d can be dismissed", "count"),
    done=ngettext_lazy("Dismissed %(count)d dead letter.", "Dismissed %(count)d dead letters.", "count"),
    refuse=lambda letter: CLOSED.get(letter.state, ""),
    do=dismiss_letter,
    is_final=True,
    hint_above_limit=gettext_lazy("All letters of a group: manage.py dismiss_dead_letters --group NAME"),
)


class GroupFilter(admin.AllValuesFieldListFilter):
    """Filter that offers every group with dead letters, even if the newest letters all belong to one group."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        with connection.cursor() as cursor:
            # This query reads one index entry per group, and DISTINCT would read every row. See "loose index scan" in
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


class StateFilter(admin.ChoicesFieldListFilter):
    """Filter that selects the open dead letters by default.

    If no state is chosen, a search finds letters of every state. An action gets every selected letter, even one that
    was closed after the page was shown.
    """

    ALL = "all"
    lookup_val: Any

    def __init__(self, field: Any, request: HttpRequest, params: dict[str, Any], *arguments: Any, **more: Any) -> None:
        super().__init__(field, request, params, *arguments, **more)
        if _names_selected_rows(request):
            self.lookup_val = [self.ALL]
        elif self.lookup_val is None:
            self.lookup_val = [self.ALL if request.GET.get(SEARCH_VAR) else DeadLetter.State.OPEN]
        self.used_parameters[self.lookup_kwarg] = self.lookup_val

    def queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> models.QuerySet[Any] | None:
        return queryset if self.shows_all else super().queryset(request, queryset)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        everything, *states = super().choices(changelist)
        query = changelist.get_query_string({self.lookup_kwarg: self.ALL})
        yield from states
        yield everything | {"selected": self.shows_all, "query_string": query}

    @property
    def shows_all(self) -> bool:
        return self.ALL in (self.lookup_val or [])


def _names_selected_rows(request: HttpRequest) -> bool:
    """Return whether an action was started on selected rows, not on all rows of the list."""
    return ACTION_CHECKBOX_NAME in request.POST and request.POST.get("select_across") != "1"


MAX_CAUSES_SHOWN = 20


def open_letters_by_cause() -> list[dict[str, Any]]:
    """Return at most `MAX_CAUSES_SHOWN` causes of open dead letters, the most frequent cause first.

    A cause is a group, a topic and an error class. Each cause has the number of its letters, the time of the newest
    letter, and the query string of the list that shows these letters.
    """
    open_letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN).order_by()
    causes = open_letters.values("group", "topic", "error_class").annotate(count=Count("pk"), newest=Max("created_at"))
    return [
        cause
        | {
            "reason": short_name(cause["error_class"]),
            "query": urlencode(
                {
                    "state__exact": DeadLetter.State.OPEN,
                    **{name: cause[name] for name in ("group", "topic", "error_class")},
                }
            ),
        }
        for cause in causes.order_by("-count", "group", "topic", "error_class")[:MAX_CAUSES_SHOWN]
    ]


class LetterList(ChangeList):
    """List without the link "Show all", which would show only open letters. The filter by state offers all states."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count


LETTER_COLOURS = {"open": "danger", "replayed": "success", "dismissed": ""}


@admin.register(DeadLetter)
class DeadLetterAdmin(MessageAdmin):
    list_display = ("position", "group", "state_label", "event_type", "reason", "replay_count", "age", "created_at")
    list_filter = (
        ("group", GroupFilter),
        ("state", StateFilter),
        ("topic", NewestValuesFilter),
        ("partition", NewestValuesFilter),
        ("event_type", NewestValuesFilter),
        ("error_class", NewestValuesFilter),
    )
    search_fields = ("event_id",)
    search_help_text = gettext_lazy("An event id, or a letter's number")
    ordering = ("-id",)
    list_before_template = "events/causes_of_open_letters.html"
    row_actions = (REPLAY, DISMISS)
    readonly_fields = (*MessageAdmin.readonly_fields, "state_label", "stacktrace_text", "age", "error_text")
    fields = (
        ("state_label", "age"),
        ("topic", "group"),
        ("partition", "offset"),
        ("created_at", "closed_at"),
        ("event_id", "event_type", "subject_id"),
        ("replay_count", "is_readable"),
        "error_class",
        "error_text",
        "value_text",
        "key_text",
        "headers_text",
        "stacktrace_text",
    )

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return LetterList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"causes": open_letters_by_cause(), **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("key", "value", "headers", "stacktrace")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        is_closed = obj is not None and obj.state != DeadLetter.State.OPEN
        return ["state_label", *self.fields[1:]] if is_closed else self.fields

    def get_ordering(self, request: HttpRequest) -> Any:
        """Return the list's order: newest first. In a list of letters in all states, the open letters come first."""
        is_of_all = request.GET.get("state__exact") == StateFilter.ALL or request.GET.get(SEARCH_VAR)
        return (OPEN_FIRST, *self.ordering) if is_of_all else self.ordering

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        return rows.filter(pk=id_or_none(term))

    def for_refusals(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        return with_sizes(rows.only("state", "is_readable", "replay_count"))

    def describe(self, row: DeadLetter) -> list[str]:
        texts = [str(row), row.group, row.event_type, self.reason(row), str(row.get_state_display())]
        return [text for text in texts if text]

    @admin.display(description=gettext_lazy("position"))
    def position(self, letter: DeadLetter) -> str:
        return str(letter)

    @admin.display(description=gettext_lazy("state"))
    def state_label(self, letter: DeadLetter) -> str:
        return badge(letter.get_state_display(), LETTER_COLOURS[letter.state])

    @admin.display(description=gettext_lazy("reason"))
    def reason(self, letter: DeadLetter) -> SafeString:
        return untranslated(reason_of(letter.error_class, letter.error_message[:100]))

    @admin.display(description=gettext_lazy("error message"))
    def error_text(self, letter: DeadLetter) -> SafeString:
        return untranslated(letter.error_message)

    @admin.display(description=gettext_lazy("open for"))
    def age(self, letter: DeadLetter) -> str | None:
        """Return the time since the creation of an open letter, such as `3 min`; None for a closed letter."""
        if letter.state != DeadLetter.State.OPEN:
            return None
        return duration(max(0.0, (now() - letter.created_at).total_seconds()))

    @admin.display(description=gettext_lazy("stack trace"))
    def stacktrace_text(self, letter: DeadLetter) -> SafeString:
        return preformatted(letter.stacktrace)
