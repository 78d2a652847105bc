"""Responses to errors outside of the API: a page for people, problem details (RFC 9457) for programs."""

from contextlib import suppress
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext, gettext_lazy

from commerce.api import problems
from commerce.start import prefers_page
from events.correlation import request_id

PLAIN = "commerce/error.html"
"""Template of a page that needs no database, no session and no other file."""
IN_ADMIN = "commerce/admin_error.html"
"""Template of a page with admin's navigation, for a user who is logged in to admin."""


class ErrorText(NamedTuple):
    title: Any
    text: Any


TEXTS = {
    400: ErrorText(
        gettext_lazy("This request cannot be answered"),
        gettext_lazy("The browser sent something that this site does not understand."),
    ),
    403: ErrorText(
        gettext_lazy("This is not allowed"),
        gettext_lazy("Your account lacks the permission for this. An administrator can grant it."),
    ),
    404: ErrorText(
        gettext_lazy("Nothing is here"),
        gettext_lazy("The address is wrong, or what it showed has been deleted."),
    ),
    500: ErrorText(
        gettext_lazy("The server failed"),
        gettext_lazy(
            "This is a fault of the site. What you did last may or may not have been saved: look before you repeat it."
        ),
    ),
}
BAD_ADDRESS = ErrorText(
    gettext_lazy("Bad address"),
    gettext_lazy("The address of this page has a value that cannot be used. Remove its filters, or go back."),
)
EXPIRED_FORM = ErrorText(
    gettext_lazy("The form has expired"),
    gettext_lazy("Nothing was changed. Go back, reload the page, and send the form again."),
)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, problems.bad_request(request, exception))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, problems.permission_denied(request, exception))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _answer(request, problems.problem_page(403, reason), EXPIRED_FORM)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request, problems.not_found(request, exception))


def server_error(request: HttpRequest) -> HttpResponse:
    return _answer(request, problems.server_error(request))


def bad_address(request: HttpRequest) -> HttpResponse:
    return _answer(request, problems.problem_page(400, str(BAD_ADDRESS.text)), BAD_ADDRESS)


def _answer(request: HttpRequest, problem: HttpResponse, text: ErrorText | None = None) -> HttpResponse:
    """Return an HTML page if the client prefers one, else `problem`. The paths `JSON_PATHS` always get `problem`.

    The page shows `text`, by default the usual text of the status.
    """
    if request.path_info.startswith(problems.JSON_PATHS):
        return problem
    status = problem.status_code
    is_page = prefers_page(request.headers.get("Accept", "*/*"))
    answer = _page(request, status, text or TEXTS[status]) if is_page else problem
    patch_vary_headers(answer, ["Accept"])
    return answer


def _page(request: HttpRequest, status: int, text: ErrorText) -> HttpResponse:
    # Not the active language: the error may have come before the middleware that activates it.
    language = translation.get_language_from_request(request)
    with translation.override(language):
        context = plain_context(request, status, text)
        if status != 500 and _is_logged_in_to_admin(request):
            page = render(request, IN_ADMIN, {**admin.site.each_context(request), **context}, status=status)
        else:
            page = HttpResponse(render_to_string(PLAIN, context), status=status)
    page["Content-Language"] = language
    patch_vary_headers(page, ["Accept-Language", "Cookie"])
    return page


def plain_context(request: HttpRequest, status: int, text: ErrorText) -> dict[str, Any]:
    """Return the context of the template `PLAIN`."""
    return {
        "title": text.title,
        "text": text.text,
        "status": status,
        "links": _ways_out(request, status),
        "request_id": request_id.get() if status == 500 else "",
        "language": translation.get_language(),
    }


def _is_logged_in_to_admin(request: HttpRequest) -> bool:
    """Return whether the user is logged in to admin. False if no middleware has added the user yet."""
    return hasattr(request, "user") and admin.site.has_permission(request)


def _ways_out(request: HttpRequest, status: int) -> list[tuple[str, str]]:
    """Return the links of an error page as (label, URL), the most useful one first."""
    links = []
    if status == 500 and request.method == "GET":
        links.append((gettext("Try again"), request.get_full_path()))
    # A request with an unknown Host gets no link back.
    with suppress(DisallowedHost):
        came_from = request.META.get("HTTP_REFERER", "")
        if url_has_allowed_host_and_scheme(came_from, {request.get_host()}):
            links.append((gettext("Go back"), came_from))
    if request.path_info.startswith(f"/{settings.ADMIN_PATH}"):
        links.append((gettext("To admin"), f"/{settings.ADMIN_PATH}"))
    links.append((gettext("To the start page"), "/"))
    return links
