from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db import models, transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy, ngettext_lazy
from unfold.admin import TabularInline

from events.admin.actions import Refused, RowAction
from events.admin.read_only import ReadOnlyAdmin, linked, untranslated
from events.outbox.publisher import publish
from events.templatetags.moments import moment
from events.wire.commands import stream_of
from events.wire.identifiers import id_or_none, uuid_or_none
from fulfilment.advancing import NotPossible, ask
from fulfilment.models import Fulfilment, FulfilmentStep
from fulfilment.templatetags.fulfilments import fulfilment_label, place_of_command
from fulfilment.transitions import RESOLVE, RETRY, STUCK, TABLE, UNDER_WAY, UNDO, State


def refuse_unless_named(message: str) -> Callable[[Fulfilment], Any]:
    """Return a function that returns why a fulfilment refuses `message`.

    The reason is the name of its state, or an empty text if `TABLE` has an entry for state and message.
    """
    return lambda row: "" if (State(row.state), message) in TABLE else row.get_state_display()


def ask_and_publish(message: str, *, log_text: str) -> Callable[[int], tuple[Fulfilment, str]]:
    """Return the function of a row action that gives `message` to a fulfilment, and publishes new messages on commit.

    The function returns the fulfilment and its log entry: `log_text`, the new state and the sent messages. It raises
    Refused if the fulfilment's state does not allow `message`.
    """

    def do(order_id: int) -> tuple[Fulfilment, str]:
        try:
            asked = ask(message, order_id=order_id)
        except NotPossible as error:
            raise Refused(str(error)) from error
        transaction.on_commit(lambda: publish(asked.messages), robust=True)
        sent = ", ".join(f"{one.event_type} {one.event_id}" for one in asked.messages)
        return asked.fulfilment, f"{log_text} {asked.fulfilment.state}{f', sent {sent}' if sent else ''}."

    return do


RETRY_STEP = RowAction(
    name="retry",
    label=gettext_lazy("Retry step"),
    label_in_list=gettext_lazy("Retry the stuck steps of selected fulfilments"),
    question=ngettext_lazy(
        "Try the stuck step of this fulfilment again? Its command is sent again under its own id.",
        "Try the stuck steps of these %(count)d fulfilments again? Their commands are sent again under their own ids.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be retried", "%(count)d can be retried", "count"),
    done=ngettext_lazy("%(count)d step is tried again.", "%(count)d steps are tried again.", "count"),
    refuse=refuse_unless_named(RETRY),
    do=ask_and_publish(RETRY, log_text="Retry step."),
)
UNDO_NOW = RowAction(
    name="undo",
    label=gettext_lazy("Undo now"),
    label_in_list=gettext_lazy("Undo selected fulfilments"),
    question=ngettext_lazy(
        "Undo this fulfilment? Its shipment is cancelled, its charge is refunded, and then the order is cancelled.",
        "Undo these %(count)d fulfilments? Their shipments are cancelled, their charges are refunded, and then the "
        "orders are cancelled.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be undone", "%(count)d can be undone", "count"),
    done=ngettext_lazy("%(count)d fulfilment is being undone.", "%(count)d fulfilments are being undone.", "count"),
    refuse=refuse_unless_named(UNDO),
    do=ask_and_publish(UNDO, log_text="Undo now."),
    is_final=True,
)
MARK_AS_RESOLVED = RowAction(
    name="resolve",
    label=gettext_lazy("Mark as resolved"),
    label_in_list=gettext_lazy("Mark the stuck steps of selected fulfilments as resolved"),
    question=ngettext_lazy(
        "Did you do the stuck step by hand, with the payment provider or the carrier? Then the fulfilment goes on "
        "without it. Otherwise money or goods are lost.",
        "Did you do the stuck steps of all %(count)d fulfilments by hand, with the payment provider or the carrier? "
        "Then they go on without them. Otherwise money or goods are lost.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be marked", "%(count)d can be marked", "count"),
    done=ngettext_lazy("%(count)d step is marked as resolved.", "%(count)d steps are marked as resolved.", "count"),
    refuse=refuse_unless_named(RESOLVE),
    do=ask_and_publish(RESOLVE, log_text="Mark as resolved."),
    is_final=True,
)


class StepInline(TabularInline):
    model = FulfilmentStep
    fields = readonly_fields = ("step", "result", "changed", "attempts", "reason_text", "command")
    can_delete = False
    hide_title = True

    @admin.display(description=gettext_lazy("state"))
    def result(self, step: FulfilmentStep) -> str:
        return fulfilment_label(step)

    @admin.display(description=gettext_lazy("since"))
    def changed(self, step: FulfilmentStep) -> SafeString:
        return moment(step.at)

    @admin.display(description=gettext_lazy("reason"))
    def reason_text(self, step: FulfilmentStep) -> SafeString:
        return untranslated(step.reason)

    @admin.display(description=gettext_lazy("command"))
    def command(self, step: FulfilmentStep) -> SafeString:
        return linked(place_of_command(step), step.command_id)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let a user who may view fulfilments view their steps as well."""
        return request.user.has_perm("fulfilment.view_fulfilment")

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


@admin.register(Fulfilment)
class FulfilmentAdmin(ReadOnlyAdmin):
    """Read-only list of fulfilments. Only the actions change one, by the table of transitions."""

    list_display = ("number", "state_label", "reason_text", "created_at", "changed_at", "deadline_at")
    list_filter = (("state", admin.ChoicesFieldListFilter),)
    search_fields = ("=order_id", "=step_rows__command_id")
    search_help_text = gettext_lazy("An order's id, or the id of a command")
    row_actions = (RETRY_STEP, UNDO_NOW, MARK_AS_RESOLVED)
    readonly_fields = ("state_label", "reason_text", "order_link", "commands")
    fields = (
        ("order_link", "state_label"),
        "reason_text",
        ("created_at", "changed_at"),
        ("deadline_at", "commands"),
    )
    inlines = (StepInline,)

    def get_ordering(self, request: HttpRequest) -> Any:
        """Return an ordering that has an index: newest first, or oldest first in a list of one unfinished state."""
        is_passing = request.GET.get("state__exact") in (*UNDER_WAY, *STUCK)
        return ("order",) if is_passing else ("-order",)

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if command_id := uuid_or_none(term):
            return rows.filter(step_rows__command_id=command_id)
        number = id_or_none(term)
        return rows.none() if number is None else rows.filter(pk=number)

    def describe(self, row: Fulfilment) -> list[str]:
        return [str(row), str(row.get_state_display())]

    @admin.display(description=gettext_lazy("order"))
    def number(self, fulfilment: Fulfilment) -> int:
        return fulfilment.pk

    @admin.display(description=gettext_lazy("order"))
    def order_link(self, fulfilment: Fulfilment) -> SafeString:
        return linked(reverse("admin:orders_order_change", args=[fulfilment.pk]), fulfilment.pk)

    @admin.display(description=gettext_lazy("commands"))
    def commands(self, fulfilment: Fulfilment) -> SafeString:
        stream = stream_of(fulfilment.pk)
        return linked(f"{reverse('admin:events_outboxevent_changelist')}?{urlencode({'q': stream})}", stream)

    @admin.display(description=gettext_lazy("state"))
    def state_label(self, fulfilment: Fulfilment) -> str:
        return fulfilment_label(fulfilment)

    @admin.display(description=gettext_lazy("reason"))
    def reason_text(self, fulfilment: Fulfilment) -> SafeString:
        return untranslated(fulfilment.reason)
