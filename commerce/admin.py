"""Admin of accounts and failed logins. Their models come from Django and axes, their forms from Unfold."""

from typing import Any

from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.apps import apps
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import OuterRef, Subquery, Sum
from django.forms import ModelMultipleChoiceField
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import gettext, gettext_lazy, ngettext
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from commerce.accounts.kept_accounts import is_kept, kept_by
from commerce.accounts.names import validate_new_name
from commerce.patches import name_failed_logins
from events.admin.actions import MAX_ROWS_NAMED, names_of
from events.admin.large_tables import EstimatingPaginator
from events.admin.read_only import badge
from events.wire.identifiers import id_or_none
from events.wire.timestamps import now

# The pages of these models would show valid refresh tokens.
admin.site.unregister([BlacklistedToken, OutstandingToken])
# Nothing writes these logs: AXES_DISABLE_ACCESS_LOG is set, and AXES_ENABLE_ACCESS_FAILURE_LOG is not.
admin.site.unregister([AccessLog, AccessFailureLog])
admin.site.unregister([AccessAttempt, Group, User])
name_failed_logins(AccessAttempt)

ACTIONS = {
    "add": gettext_lazy("Add"),
    "change": gettext_lazy("Change"),
    "delete": gettext_lazy("Delete"),
    "view": gettext_lazy("View"),
}
"""Labels of the permissions that Django makes for each model, by the beginning of the permission's codename."""


class NewNameForm:
    """A form mixin that applies the rules of registration to a new or changed username."""

    cleaned_data: dict[str, Any]
    changed_data: list[str]
    instance: User

    def clean_username(self) -> Any:
        name = self.cleaned_data["username"]
        if "username" in self.changed_data:
            validate_new_name(name, user_id=self.instance.pk or 0)
        return name


class NewUserForm(NewNameForm, UserCreationForm):
    pass


class ChangedUserForm(NewNameForm, UserChangeForm):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if password := self.fields.get("password"):
            password.help_text = gettext_lazy("Only a hash of the password is stored. Use “Set a new password” above.")


class PermissionChoices(ModelMultipleChoiceField):  # type: ignore[type-arg]
    """A choice of permissions, with labels in the user's language."""

    def label_from_instance(self, permission: Permission) -> str:
        action = ACTIONS.get(permission.codename.partition("_")[0])
        return f"{capfirst(permission.content_type.name)}: {action or gettext(permission.name)}"


class DeleteAction:
    """An admin mixin that offers the deletion of a row beside the row's other actions.

    Unfold's own button composes its label in English word order, which is wrong in Korean.
    """

    opts: Any
    actions_detail: tuple[str, ...] = ("delete_this",)

    def changeform_view(
        self, request: Any, object_id: Any = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        context = {**(extra_context or {}), "show_delete": False}
        return super().changeform_view(request, object_id, form_url, context)  # type: ignore[misc]

    @action(description=gettext_lazy("Delete"), url_path="remove", permissions=["delete"], variant=ActionVariant.DANGER)
    def delete_this(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        return HttpResponseRedirect(
            reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_delete", args=[object_id])
        )


class Checkboxes:
    """A mixin for the admin of accounts and groups. It shows a many-to-many field as checkboxes, which have labels.

    Django's own widget for such a field, two lists side by side, has no labels. Of the permissions, only those for
    models that admin shows are offered.
    """

    opts: Any
    filter_horizontal = ()

    def formfield_for_manytomany(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
        if db_field.related_model is Permission:
            shown = ContentType.objects.get_for_models(*filter(admin.site.is_registered, apps.get_models())).values()
            kwargs["queryset"] = Permission.objects.filter(content_type__in=shown).select_related("content_type")
            kwargs["form_class"] = PermissionChoices
        return super().formfield_for_manytomany(db_field, request, **kwargs)  # type: ignore[misc]

    def get_deleted_objects(self, rows: Any, request: HttpRequest) -> Any:
        """Return only the chosen rows for the page that confirms their deletion.

        The page does not list the rows that are deleted with them, because these are parts of the chosen rows.
        """
        _, counts, missing_permissions, protected = super().get_deleted_objects(rows, request)  # type: ignore[misc]
        plural = self.opts.verbose_name_plural
        return [str(row) for row in rows], {plural: counts.get(plural, 0)}, missing_permissions, protected


@admin.register(User)
class AccountAdmin(DeleteAction, Checkboxes, UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    add_form = NewUserForm
    form = ChangedUserForm
    change_password_form = AdminPasswordChangeForm
    paginator = EstimatingPaginator
    show_full_result_count = False
    actions = ("delete_selected",)
    actions_detail = ("set_new_password", *DeleteAction.actions_detail)
    change_form_before_template = "commerce/kept_account.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete accounts and the account `obj` can be deleted.

        `obj` is an account or its id. If it is None, only the user's permission counts.
        """
        user_id = obj.pk if isinstance(obj, User) else id_or_none(unquote(str(obj)))
        return super().has_delete_permission(request) and not (user_id and kept_by(user_id))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        because = self._kept_because(request, object_id)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "kept_because": because})

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """If the account cannot be deleted, redirect to its page, which says why."""
        if not self._kept_because(request, object_id):
            return super().delete_view(request, object_id, extra_context)
        self.message_user(request, gettext("The account was not deleted."), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:auth_user_change", args=[object_id]))

    def _kept_because(self, request: HttpRequest, object_id: str) -> str:
        """Return a sentence that says why this account cannot be deleted.

        Return an empty text if it can be deleted, or if the user may not delete accounts.
        """
        user_id = id_or_none(unquote(object_id))
        if not (user_id and super().has_delete_permission(request) and (rows := kept_by(user_id))):
            return ""
        text = gettext("This account cannot be deleted, because it has %(rows)s. Clear “Active” to close it instead.")
        return text % {"rows": ", ".join(rows)}

    @admin.action(description=delete_selected.short_description, permissions=["delete"])  # type: ignore[attr-defined]
    def delete_selected(self, request: HttpRequest, rows: models.QuerySet[User]) -> HttpResponse | None:
        """Run Django's deletion for the accounts that can be deleted, and name the other accounts in a message."""
        kept = rows.filter(is_kept()).order_by("pk")
        if count := kept.count():
            text = ngettext(
                "%(count)d account is skipped: %(names)s. It cannot be deleted; its page says why.",
                "%(count)d accounts are skipped: %(names)s. They cannot be deleted; their pages say why.",
                count,
            )
            names = names_of(list(kept[:MAX_ROWS_NAMED]), count)
            self.message_user(request, text % {"count": count, "names": names}, messages.WARNING)
        others = rows.exclude(is_kept())
        return delete_selected(self, request, others) if others.exists() else None

    @action(
        description=gettext_lazy("Set a new password"), url_path="new-password", permissions=["change"], icon="password"
    )
    def set_new_password(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:auth_user_password_change", args=[object_id]))


@admin.register(Group)
class AccountGroupAdmin(DeleteAction, Checkboxes, GroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


@admin.register(AccessAttempt)
class FailedLoginAdmin(DeleteAction, ModelAdmin):
    """Failed logins since the last success, by name, address and browser. Deleting them ends the lockout."""

    list_display = ("username", "ip_address", "failures_since_start", "lock", "attempt_time")
    list_display_links = ("username", "ip_address")
    search_fields = ("username", "ip_address")
    search_help_text = gettext_lazy("A name or an address")
    fields = readonly_fields = (*list_display, "user_agent", "path_info")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[AccessAttempt]:
        """Annotate each row with `failures`, the number of failed logins of its name and address.

        As for the lockout, only rows whose last failure is within `AXES_COOLOFF_TIME` count. Without such a row,
        `failures` is None.
        """
        of_pair = AccessAttempt.objects.filter(
            username=OuterRef("username"),
            ip_address=OuterRef("ip_address"),
            attempt_time__gt=now() - settings.AXES_COOLOFF_TIME,
        )
        total = of_pair.order_by().values("username").annotate(total=Sum("failures_since_start")).values("total")
        return super().get_queryset(request).annotate(failures=Subquery(total))

    @admin.display(description=gettext_lazy("state"))
    def lock(self, attempt: Any) -> str:
        if attempt.attempt_time + settings.AXES_COOLOFF_TIME <= now():
            return badge(gettext("over"), "")
        left = settings.AXES_FAILURE_LIMIT - (attempt.failures or 0)
        if left <= 0:
            return badge(gettext("locked"), "danger")
        return badge(ngettext("%d attempt left", "%d attempts left", left) % left, "warning")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
