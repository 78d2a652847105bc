"""Login and password forms of admin. Admin and the API share one count of password attempts."""

import math
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext
from rest_framework.request import Request
from unfold.forms import AdminOwnPasswordChangeForm, AuthenticationForm

from commerce.accounts.backends import normalized
from commerce.accounts.lockout import seconds_locked
from commerce.api.throttling import TokenThrottle


class PasswordThrottleMiddleware:
    """Counts every admin form sent with a password, right or wrong, as a login attempt of the client's address.

    After too many attempts, it answers 429 and does not call the view.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        """Count a login attempt after Django's CSRF check, so that another site cannot use up a user's attempts."""
        if request.method in ("GET", "HEAD") or not request.path_info.startswith(f"/{settings.ADMIN_PATH}"):
            return None
        if not any("password" in name for name in request.POST):
            return None
        throttle = TokenThrottle()
        if throttle.allow_request(Request(request), view):
            return None
        return _too_many_attempts(
            request, gettext("There were too many attempts from this address."), math.ceil(throttle.wait())
        )


class LoginForm(AuthenticationForm):
    """A login form that counts every refused login as a failed one.

    This includes the right password of an account without access to admin. Otherwise the lockout would reveal that the
    password is right.
    """

    def confirm_login_allowed(self, user: User) -> None:
        try:
            super().confirm_login_allowed(user)
        except ValidationError:
            user_login_failed.send(__name__, credentials={"username": user.get_username()}, request=self.request)
            raise


class OwnPasswordForm(AdminOwnPasswordChangeForm):
    """A form that accepts the old password in every spelling that the login accepts."""

    def clean_old_password(self) -> Any:
        given = self.cleaned_data["old_password"]
        if self.user.check_password(normalized(given)):
            return given
        return super().clean_old_password()


def change_own_password(request: HttpRequest) -> HttpResponseBase:
    """Render Unfold's password page with `OwnPasswordForm`. Unfold has no setting for the form."""
    page = PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse("admin:password_change_done"),
        extra_context=admin.site.each_context(request),
    )
    return page(request)


def locked_out(request: HttpRequest, response: HttpResponse, credentials: dict[str, Any] | None) -> HttpResponse:
    """Return a page with status 429. Axes shows it instead of the login while a name is locked for an address."""
    reason = gettext("There were too many wrong passwords for this name from this address.")
    return _too_many_attempts(request, reason, seconds_locked(request, (credentials or {}).get("username", "")))


def _too_many_attempts(request: HttpRequest, reason: str, seconds: int) -> HttpResponse:
    context = admin.site.each_context(request) | {
        "title": gettext("Too many attempts"),
        "reason": reason,
        "seconds": seconds,
    }
    page = render(request, "commerce/too_many_attempts.html", context, status=429)
    page["Retry-After"] = str(max(1, seconds))
    return page
