"""Admin actions on rows: each is confirmed first, runs for one row at a time, and is logged for each row."""

from collections.abc import Callable
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from unfold.admin import ModelAdmin

MAX_REFUSALS_SHOWN = 20
"""Refusals that are shown in full, because messages must fit into a session. Further ones are counted."""
MAX_ROWS_LISTED = 20
"""Rows that the confirmation lists. Further ones are counted."""
MAX_ROWS_PER_REQUEST = 1_000
"""Rows that one request may change within the web server's time limit."""


class Refused(Exception):
    """The action leaves this row unchanged. The message says why, for the user."""


class RowAction(NamedTuple):
    """An action on a row."""

    question: Any
    """Text of the confirmation, with the consequences of the action."""
    button: Any
    """Label of the button that confirms."""
    done: Any
    """Message after the action, from `ngettext_lazy`, with `%d` for the number of rows."""
    do: Callable[[int], tuple[models.Model, str]]
    """Change the row with this id. Return the row and the text of its log entry. Raises Refused."""
    for_more: Any = ""
    """Hint for a selection above `MAX_ROWS_PER_REQUEST`: the command for any number of rows."""


class RowActionsAdmin(ModelAdmin):
    """Base class for models with row actions, in the list and on the page of a row."""

    def offer(
        self, request: HttpRequest, action: RowAction, *, rows: models.QuerySet[Any], object_id: str | None = None
    ) -> HttpResponse | None:
        """Show the confirmation of `action` for `rows`, or run the action if the request confirms it.

        `object_id` is the id of the row on whose page the action was started; None in the list.
        """
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[: MAX_ROWS_PER_REQUEST + 1])
        back = self._back(object_id)
        if len(ids) > MAX_ROWS_PER_REQUEST:
            text = _("These are more than %d, which is what one request can do. Select fewer.")
            self.message_user(request, f"{text % MAX_ROWS_PER_REQUEST} {action.for_more}".strip(), messages.WARNING)
            return HttpResponseRedirect(back)
        if "confirmed" not in request.POST:
            return self._ask(request, action, rows=rows, ids=ids, back=back)
        self._do(request, action, ids)
        return HttpResponseRedirect(back)

    def one(self, request: HttpRequest, object_id: str) -> models.QuerySet[Any]:
        """Return a queryset of the one row with this id, which comes from a URL. Raises Http404."""
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        return self.get_queryset(request).filter(pk=row.pk)

    def _back(self, object_id: str | None) -> str:
        place = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        return reverse(f"{place}_changelist") if object_id is None else reverse(f"{place}_change", args=[object_id])

    def _ask(
        self, request: HttpRequest, action: RowAction, *, rows: models.QuerySet[Any], ids: list[int], back: str
    ) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": action.button,
            "opts": self.opts,
            "action": action,
            "rows": rows.order_by("pk")[:MAX_ROWS_LISTED],
            "more": max(0, len(ids) - MAX_ROWS_LISTED),
            "back": back,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", ""),
            "name": request.POST.get("action", ""),
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/confirm_action.html", context)

    def _do(self, request: HttpRequest, action: RowAction, ids: list[int]) -> None:
        done = 0
        refusals = []
        for row_id in ids:
            try:
                # The change and its log entry are one transaction.
                with transaction.atomic():
                    row, what = action.do(row_id)
                    self.log_change(request, row, what)
            except Refused as refused:
                refusals.append(str(refused))
            else:
                done += 1
        if done:
            self.message_user(request, action.done % done, messages.SUCCESS)
        for refusal in refusals[:MAX_REFUSALS_SHOWN]:
            self.message_user(request, refusal, messages.WARNING)
        more = len(refusals) - MAX_REFUSALS_SHOWN
        if more > 0:
            text = ngettext("%d more is left as it is.", "%d more are left as they are.", more) % more
            self.message_user(request, text, messages.WARNING)
