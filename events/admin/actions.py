"""Admin actions on rows. The user confirms an action first. It changes one row at a time, and logs each change."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import ObjectDoesNotExist
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from unfold.admin import ModelAdmin
from unfold.decorators import action as page_action
from unfold.enums import ActionVariant

MAX_ROWS_NAMED = 12
"""Largest number of rows that a confirmation names, and that a message names for each reason. The text gives only the
number of the other rows."""
MAX_ROWS_PER_REQUEST = 1_000
"""Largest number of rows that one request may change, so that it ends within the web server's time limit."""


class Refused(Exception):
    """An action cannot change a row, and leaves it unchanged. The message says why, such as "paid already"."""


class RowAction(NamedTuple):
    """An action on rows in admin, and its texts.

    Texts are lazy translations. A text with the number of rows comes from `ngettext_lazy("...", "...", "count")`, with
    `%(count)d` where the number goes.
    """

    name: str
    """Name such as `send_again`. The action needs the permission with the codename `send_again_<model name>`."""
    label: Any
    """Label of the action on the page of a row."""
    label_in_list: Any
    """Label of the action in the list, such as "Pay selected orders"."""
    question: Any
    """Text of the confirmation: the consequences of the action, with `%(count)d` for the number of rows."""
    possible: Any
    """Text such as "%(count)d can be paid". The confirmation shows it if only some of the rows can be changed."""
    done: Any
    """Message after the action, such as "%(count)d orders are paid." The number is that of the changed rows."""
    refuse: Callable[[Any], Any]
    """Return why the action cannot change this row, in words such as "paid already"; an empty text if it can."""
    do: Callable[[int], tuple[models.Model, str]]
    """Change and save the row with this id, in the transaction that saves the log entry. Return the row and the text of
    the entry. Raises Refused, or ObjectDoesNotExist if the row was deleted."""
    button: Any = ""
    """Label of the button that confirms, such as "Cancel %(count)d orders". If it is empty, the button has `label`."""
    is_final: bool = False
    """Whether the change cannot be undone. If so, the button is red."""
    hint_above_limit: Any = ""
    """Hint for a selection of more than `MAX_ROWS_PER_REQUEST` rows: the command that changes any number of rows."""


class RowActionsAdmin(ModelAdmin):
    """Base class for the admin of models with row actions, which run from the list and from the page of a row."""

    row_actions: Sequence[RowAction] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Add the methods of the row actions to the subclass. Django and Unfold find these methods by their names.

        A subclass with row actions offers no other actions.
        """
        super().__init_subclass__(**options)
        for action in cls.row_actions:
            _add_methods(cls, action)
        if cls.row_actions:
            cls.actions = [f"{one.name}_selected" for one in cls.row_actions]
            cls.actions_detail = [f"{one.name}_this" for one in cls.row_actions]

    def describe(self, row: Any) -> list[str]:
        """Return the texts by which a user recognises the row in a confirmation."""
        return [str(row)]

    def for_refusals(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Return `rows` with the annotations that `RowAction.refuse` reads. A subclass adds those that it needs."""
        return rows

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Return the actions that can change the row and that the user may run."""
        allowed: list[Any] = super().get_actions_detail(request, object_id)
        if not allowed or (found := self.get_object(request, unquote(str(object_id)))) is None:
            return allowed
        row = self.for_refusals(self.get_queryset(request).filter(pk=found.pk)).first()
        refuses = {_path(one): one.refuse for one in self.row_actions}
        return [one for one in allowed if row and not refuses[one.path](row)]

    def confirm_or_run(
        self, request: HttpRequest, action: RowAction, *, rows: models.QuerySet[Any], object_id: str | None = None
    ) -> HttpResponse | None:
        """Show the confirmation of `action` for `rows`, or run the action if the request confirms it.

        If there are more than `MAX_ROWS_PER_REQUEST` rows, only show a warning. If the user started the action on the
        page of a row, `object_id` is the id of that row. In the list it is None.
        """
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[: MAX_ROWS_PER_REQUEST + 1])
        back = self._back(object_id)
        if len(ids) > MAX_ROWS_PER_REQUEST:
            text = _("One request can change at most %d rows. Select fewer.")
            self.message_user(
                request, f"{text % MAX_ROWS_PER_REQUEST} {action.hint_above_limit}".strip(), messages.WARNING
            )
            return HttpResponseRedirect(back)
        if "confirmed" not in request.POST:
            return self._confirmation_page(request, action, rows=rows, back=back, is_of_one_page=object_id is not None)
        self._run(request, action, ids)
        return HttpResponseRedirect(back)

    def row_by_id(self, request: HttpRequest, object_id: str) -> models.QuerySet[Any]:
        """Return a queryset of the row with the id `object_id` from a URL. Raises Http404 if there is no such row."""
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        return self.get_queryset(request).filter(pk=row.pk)

    def _back(self, object_id: str | None) -> str:
        place = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        return reverse(f"{place}_changelist") if object_id is None else reverse(f"{place}_change", args=[object_id])

    def _confirmation_page(
        self, request: HttpRequest, action: RowAction, *, rows: models.QuerySet[Any], back: str, is_of_one_page: bool
    ) -> TemplateResponse:
        possible: list[int] = []
        skipped: dict[str, list[int]] = {}
        for row in self.for_refusals(rows).order_by("pk"):
            reason = str(action.refuse(row))
            (skipped.setdefault(reason, []) if reason else possible).append(row.pk)
        shown = possible or [pk for pks in skipped.values() for pk in pks]
        named = self._named(request, shown)
        button = (action.button or action.label) % {"count": max(1, len(possible))}
        context = {
            **self.admin_site.each_context(request),
            "title": button,
            "opts": self.opts,
            "original": named[0] if is_of_one_page and named else None,
            "button": button,
            "variant": "danger" if action.is_final else "primary",
            "question": action.question % {"count": len(possible)} if possible else "",
            "outcome": _outcome(action, possible=len(possible), skipped=skipped),
            "rows": [self.describe(row) for row in named],
            "more": len(shown) - len(named),
            "back": back,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", ""),
            "name": request.POST.get("action", ""),
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/confirm_action.html", context)

    def _named(self, request: HttpRequest, ids: list[int]) -> list[Any]:
        """Return the rows of the first `MAX_ROWS_NAMED` ids, with the related rows that the list loads."""
        rows = self.get_queryset(request).filter(pk__in=ids[:MAX_ROWS_NAMED]).order_by("pk")
        related = self.list_select_related
        return list(rows if isinstance(related, bool) else rows.select_related(*related))

    def _run(self, request: HttpRequest, action: RowAction, ids: list[int]) -> None:
        done = 0
        skipped: dict[str, list[int]] = {}
        for row_id in ids:
            try:
                # The change and its log entry are one transaction.
                with transaction.atomic():
                    row, what = action.do(row_id)
                    self.log_change(request, row, what)
            except Refused as refused:
                skipped.setdefault(str(refused), []).append(row_id)
            except ObjectDoesNotExist:
                skipped.setdefault(_("deleted meanwhile"), []).append(row_id)
            else:
                done += 1
        if done:
            self.message_user(request, action.done % {"count": done}, messages.SUCCESS)
        if skipped:
            named = {reason: self._named(request, pks) for reason, pks in skipped.items()}
            self.message_user(request, _text_about_unchanged(skipped, named), messages.WARNING)


def _path(action: RowAction) -> str:
    return action.name.replace("_", "-")


def _add_methods(model_admin: type[RowActionsAdmin], action: RowAction) -> None:
    """Add the methods that start the action from the list and from the page of a row, and that check its permission."""
    name = action.name
    variant = ActionVariant.DANGER if action.is_final else ActionVariant.DEFAULT

    def has_permission(self: RowActionsAdmin, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{name}_{self.opts.model_name}")

    @admin.action(description=action.label_in_list, permissions=[name])
    def selected(self: RowActionsAdmin, request: HttpRequest, rows: models.QuerySet[Any]) -> HttpResponse | None:
        return self.confirm_or_run(request, action, rows=rows)

    @page_action(description=action.label, url_path=_path(action), permissions=[name], variant=variant)
    def this(self: RowActionsAdmin, request: HttpRequest, object_id: str) -> HttpResponse | None:
        rows = self.row_by_id(request, object_id)
        return self.confirm_or_run(request, action, rows=rows, object_id=object_id)

    setattr(model_admin, f"has_{name}_permission", has_permission)
    setattr(model_admin, f"{name}_selected", selected)
    setattr(model_admin, f"{name}_this", this)


def _outcome(action: RowAction, *, possible: int, skipped: Mapping[str, list[int]]) -> str:
    """Return what the action will do with the rows; an empty text if it will change all of them.

    `skipped` has the ids of the rows that the action cannot change, by the reason.
    """
    count = sum(map(len, skipped.values()))
    if count == 0:
        return ""
    reasons = ", ".join(f"{reason} ({len(pks)})" if len(skipped) > 1 else reason for reason, pks in skipped.items())
    if possible + count == 1:
        return _("This cannot be done: %(reason)s.") % {"reason": reasons}
    text = ngettext("%(count)d is skipped: %(reasons)s.", "%(count)d are skipped: %(reasons)s.", count)
    said = text % {"count": count, "reasons": reasons}
    if possible == 0:
        return said
    return _("%(possible)s, %(skipped)s") % {"possible": action.possible % {"count": possible}, "skipped": said}


def _text_about_unchanged(skipped: Mapping[str, list[int]], named: Mapping[str, list[Any]]) -> str:
    """Return one message about all rows that the action left unchanged.

    `skipped` maps each reason to the ids of these rows, and `named` maps it to the rows that the message names.
    """
    count = sum(map(len, skipped.values()))
    reasons = [f"{reason} ({names_of(named[reason], len(pks))})" for reason, pks in skipped.items()]
    text = ngettext("%(count)d is left as it is: %(reasons)s.", "%(count)d are left as they are: %(reasons)s.", count)
    return text % {"count": count, "reasons": ", ".join(reasons)}


def names_of(rows: Sequence[Any], count: int) -> str:
    """Return the names of `rows`, and the number of the rows that are not among them, such as "A, B and 3 more".

    `count` is the number of all rows. If `rows` is empty, return only this number.
    """
    if not rows:
        return str(count)
    names = ", ".join(map(str, rows))
    more = count - len(rows)
    return f"{names} " + ngettext("and %(more)s more", "and %(more)s more", more) % {"more": more} if more else names
