"""Middleware that only admin needs: the API knows neither sessions nor messages, and speaks English.

Beneath every path it would cost the API 2 to 4 % of its orders/s.
"""

import logging
import traceback
from functools import cache
from itertools import chain
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo, available_timezones

from django.apps import apps
from django.conf import settings
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.middleware import locale
from django.shortcuts import render
from django.utils import timezone, translation
from django.utils.deprecation import MiddlewareMixin

from commerce.api.problems import not_found

logger = logging.getLogger(__name__)

BAD_ADDRESS = "commerce/bad_address.html"
ADMIN_APPS = ("django.contrib.admin", "unfold")
"""The apps that read the query of an address: which rows, in which order, and the first values of a form."""
LISTS = "django.contrib.admin.views.main"
"""The module of the code that asks for the rows of a list."""


def _is_admin(request: HttpRequest) -> bool:
    return request.path_info.startswith(f"/{settings.ADMIN_PATH}")


class _AdminOnly(MiddlewareMixin):
    def __call__(self, request: HttpRequest) -> Any:
        if _is_admin(request):
            return super().__call__(request)
        return self.get_response(request)


class SessionMiddleware(_AdminOnly, sessions.SessionMiddleware):
    pass


class AuthenticationMiddleware(_AdminOnly, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(_AdminOnly, messages.MessageMiddleware):
    pass


class LocaleMiddleware(_AdminOnly, locale.LocaleMiddleware):
    """Admin speaks its reader's language."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        try:
            return super().process_response(request, response)
        finally:
            # The thread's next request may be the API's.
            translation.deactivate()


class TimeZoneMiddleware(_AdminOnly):
    """Admin shows times in its reader's zone, which a script of its pages tells by a cookie; without one, in UTC."""

    cookie = "timezone"

    def process_request(self, request: HttpRequest) -> None:
        name = unquote(request.COOKIES.get(self.cookie, ""))
        if name in _known_time_zones():
            timezone.activate(ZoneInfo(name))

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        # The thread's next request may be the API's.
        timezone.deactivate()
        return response


@cache
def _known_time_zones() -> set[str]:
    """Read once, because it looks through a folder of 600 files. PostgreSQL does not know `localtime`."""
    return available_timezones() - {"localtime"}


class OddAddressMiddleware(_AdminOnly):
    """Answers 400 to an address of admin that asks for values which neither Python nor PostgreSQL can hold.

    Django's lists refuse some of them, and pass on the others: NUL, years after 9999, numbers of thirty digits. They
    fail only when a list is read or shown, in the lists of our apps and of every package. Whatever else fails is a
    fault of the code, and stays a failure of the server.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if "\0" in request.path_info:
            return not_found(request)
        given = chain.from_iterable(chain([name], values) for name, values in request.GET.lists())
        return _bad_address(request) if any("\0" in text for text in given) else None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        asks = _is_admin(request) and request.method in ("GET", "HEAD") and request.GET
        if not (asks and _is_of_the_query(exception)):
            return None
        logger.warning("An address of admin asks for what cannot be: %s", exception, exc_info=exception)
        return _bad_address(request)

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        """In the place of Django's page about a broken database, which does not render with Unfold's templates."""
        if response.template_name == "admin/invalid_setup.html":
            response.template_name, response.status_code = BAD_ADDRESS, 400
        return response


def _is_of_the_query(error: Exception) -> bool:
    """Whether `error` arose where admin itself reads the query of an address, or from the rows that a list asked for.

    An app's own code may be what asks for these rows, a paginator for instance.
    """
    if isinstance(error, DisallowedModelAdminLookup):
        return True
    if not isinstance(error, ValueError | OverflowError | DataError):
        return False
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    for module in reversed(modules):
        if module.startswith("django.db."):
            return LISTS in modules
        if app := apps.get_containing_app_config(module):
            return app.name in ADMIN_APPS
    return False


def _bad_address(request: HttpRequest) -> HttpResponse:
    return render(request, BAD_ADDRESS, status=400)
