"""Middleware that runs only for admin. The API has no sessions and no messages, and answers in English.

Such middleware would cost CPU time in each request to the API. See docs/performance.md.
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
from django.core.paginator import InvalidPage
from django.db import DataError
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware import locale
from django.utils import timezone, translation
from django.utils.deprecation import MiddlewareMixin

from commerce import error_pages

logger = logging.getLogger(__name__)

ADMIN_APPS = ("django.contrib.admin", "unfold")
"""The apps whose code reads admin's query string: filters, order of rows, and initial values of forms."""
LIST_MODULE = "django.contrib.admin.views.main"
"""Name of the module in which admin queries the rows of a list.

If Django's database code raises an exception for a value in such a query, the query string is taken to be the cause,
and the answer is 400.
"""


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
    """Show admin in the user's language."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        try:
            return super().process_response(request, response)
        finally:
            # The thread's next request may be the API's.
            translation.deactivate()


class TimeZoneMiddleware(_AdminOnly):
    """Show times in admin in the time zone that a cookie names, else in UTC.

    A script of the page sets the cookie to the browser's time zone.
    """

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
    """Return the names of all time zones but `localtime`, which PostgreSQL does not know.

    Cached, because zoneinfo walks through a folder of 600 files.
    """
    return available_timezones() - {"localtime"}


class OddAddressMiddleware(_AdminOnly):
    """Answer 400 to an admin URL whose query string has a value that Python or PostgreSQL cannot represent.

    Examples are NUL, years after 9999 and numbers of thirty digits. Django's lists reject some of these values. The
    others raise an exception when the list is read or rendered. Every other exception is a fault of the code and stays
    a 500. A path with NUL, and a page that raises Http404, are answered with this site's page for 404.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if "\0" in request.path_info:
            return error_pages.not_found(request)
        given = chain.from_iterable(chain([name], values) for name, values in request.GET.lists())
        return error_pages.bad_address(request) if any("\0" in text for text in given) else None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, Http404) and _is_admin(request):
            # In debug mode Django's page would replace handler404.
            return error_pages.not_found(request, exception)
        asks = _is_admin(request) and request.method in ("GET", "HEAD") and request.GET
        if not (asks and _is_of_the_query(exception)):
            return None
        logger.warning("An admin URL has a value that cannot be used: %s", exception, exc_info=exception)
        return error_pages.bad_address(request)

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        """Answer 400 with this site's page if a list's filters are invalid. Unfold cannot render Django's page."""
        if response.template_name == "admin/invalid_setup.html":
            response.template_name, response.status_code = error_pages.PLAIN, 400
            response.context_data = error_pages.plain_context(request, 400, error_pages.BAD_ADDRESS)
        return response


def _is_of_the_query(error: Exception) -> bool:
    """Return whether admin raised `error` while it parsed the query string or while it queried a list.

    The query of a list may run in code of another app, such as a paginator.
    """
    if isinstance(error, DisallowedModelAdminLookup | InvalidPage):
        return True
    if not isinstance(error, ValueError | OverflowError | DataError):
        return False
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    for module in reversed(modules):
        if module.startswith("django.db."):
            return LIST_MODULE in modules
        if app := apps.get_containing_app_config(module):
            return app.name in ADMIN_APPS
    return False
