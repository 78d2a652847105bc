from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import User
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from commerce.accounts.names import validate_new_name

# The pages of these models would show valid refresh tokens.
admin.site.unregister([BlacklistedToken, OutstandingToken])
admin.site.unregister(User)


class NewNameForm:
    """A form mixin that applies the rules of registration to a new or changed name."""

    cleaned_data: dict[str, Any]
    changed_data: list[str]
    instance: User

    def clean_username(self) -> Any:
        name = self.cleaned_data["username"]
        if "username" in self.changed_data:
            validate_new_name(name, user_id=self.instance.pk or 0)
        return name


class NewUserForm(NewNameForm, AdminUserCreationForm):  # type: ignore[type-arg]
    pass


class ChangedUserForm(NewNameForm, UserChangeForm):  # type: ignore[type-arg]
    pass


@admin.register(User)
class AccountAdmin(UserAdmin):  # type: ignore[type-arg]
    add_form = NewUserForm
    form = ChangedUserForm
