"""Admin of leased work (`events.work`): its state, attempts, lease and last error, and an action to try it again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext, gettext_lazy

from events.admin.actions import Refused
from events.admin.read_only import ReadOnlyAdmin, untranslated
from events.templatetags.leased_work import state_label
from events.templatetags.moments import moment
from events.wire.timestamps import now
from events.work.models import LeasedWork

ERROR_CHARS_IN_LIST = 100
NOT_FAILED = {
    "pending": gettext_lazy("pending already"),
    "done": gettext_lazy("done already"),
    "cancelled": gettext_lazy("cancelled already"),
}
"""Reasons why work that has not failed is not tried again, by its state."""


def refuse_unless_failed(work: LeasedWork) -> Any:
    return NOT_FAILED.get(work.state, "")


def try_again(
    model: type[LeasedWork], *, within: Callable[[], timedelta], log_text: str
) -> Callable[[int], tuple[LeasedWork, str]]:
    """Return the function of a row action that makes failed work pending again.

    `within` returns how long workers may try the work from then on. `log_text` is the text of the log entry.
    """

    def do(work_id: int) -> tuple[LeasedWork, str]:
        work = model.objects.select_for_update().only("state").get(pk=work_id)
        if reason := refuse_unless_failed(work):
            raise Refused(reason)
        model.objects.filter(pk=work_id).try_again(within=within())
        return work, log_text

    return do


class LeasedWorkAdmin(ReadOnlyAdmin):
    """Base class for the admin of leased work.

    A subclass adds `WORK_COLUMNS` to its list, and `WORK_FIELDS` to its page.
    """

    WORK_COLUMNS = ("state_label", "attempts", "due", "error_beginning")
    WORK_FIELDS = (("state_label", "attempts"), ("due", "deadline_at"), ("created_at", "finished_at"), "error_text")

    list_filter: Any = (("state", admin.ChoicesFieldListFilter),)
    readonly_fields: Any = ("state_label", "due", "error_text")

    def get_ordering(self, request: HttpRequest) -> Any:
        """Return a sort order that an index supports.

        Pending work begins with the earliest due time, and finished work with the latest end. Without a filter, the
        newest work comes first.
        """
        match request.GET.get("state__exact"):
            case None:
                return ("-pk",)
            case LeasedWork.State.PENDING:
                return ("due_at",)
            case _:
                return ("-finished_at",)

    @admin.display(description=gettext_lazy("state"))
    def state_label(self, work: LeasedWork) -> str:
        return state_label(work)

    @admin.display(description=gettext_lazy("due at"))
    def due(self, work: LeasedWork) -> SafeString | None:
        """Return as HTML the time at which pending work is due; None for work that is not pending.

        While a worker has claimed the work, this is the time at which the lease ends.
        """
        if work.state != LeasedWork.State.PENDING:
            return None
        if work.lease and work.due_at > now():
            return format_html("{} {}", gettext("with a worker until"), moment(work.due_at))
        return moment(work.due_at)

    @admin.display(description=gettext_lazy("last error"))
    def error_beginning(self, work: LeasedWork) -> SafeString:
        return untranslated(Truncator(work.last_error).chars(ERROR_CHARS_IN_LIST))

    @admin.display(description=gettext_lazy("last error"))
    def error_text(self, work: LeasedWork) -> SafeString:
        return untranslated(work.last_error)
