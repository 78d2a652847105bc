"""Error responses as RFC 9457 problem details."""

import logging
import math
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework.exceptions import APIException, ErrorDetail, NotFound, ParseError, ValidationError
from rest_framework.exceptions import PermissionDenied as APIPermissionDenied
from rest_framework.response import Response
from rest_framework.views import set_rollback

from commerce.api.json import JSONRenderer
from commerce.request_bodies import ChunkedBody
from commerce.request_head import REFUSAL

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
# Python has these names since 3.13. Older versions have the names of an older standard.
TITLES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""Names in RFC 9110 of the statuses that older Pythons name differently. `HTTPStatus` has the other names."""
JSON_PATHS = ("/api/", "/health/", "/metrics")


def problem_response(error: Exception, context: dict[str, Any]) -> Response:
    """Return the response to an exception of an API view. Log an unexpected exception and answer it with 500."""
    set_rollback()
    if isinstance(error, Http404):
        error = NotFound()
    elif isinstance(error, PermissionDenied):
        error = APIPermissionDenied()
    elif isinstance(error, SuspiciousOperation):
        error = ParseError()
    if not isinstance(error, APIException):
        logger.error("Unexpected error", exc_info=error)
        return Response(problem(500, "The server failed."), 500, content_type=CONTENT_TYPE)
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if encoding := getattr(error, "accept_encoding", None):
        headers["Accept-Encoding"] = encoding
    if (wait := getattr(error, "wait", None)) is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if isinstance(error, ValidationError):
        body = problem(400, "The request is not valid.", errors=list(_pointed(error.detail)))
    else:
        body = problem(error.status_code, _text(error.detail))
    return Response(body, error.status_code, headers=headers, content_type=CONTENT_TYPE)


def problem(status: int, detail: str, **extensions: Any) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": TITLES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **extensions,
    }


def _text(detail: Any) -> str:
    """Return an exception's detail as text. simplejwt passes a dict with the text under `detail`."""
    if isinstance(detail, dict):
        detail = detail.get("detail", detail)
    return " ".join(map(str, detail)) if isinstance(detail, list) else str(detail)


def _pointed(detail: Any, pointer: str = "") -> Iterator[dict[str, str]]:
    """Flatten DRF's nested errors. Yield each message with the JSON pointer (RFC 6901) to its field."""
    if isinstance(detail, dict):
        for key, nested in detail.items():
            step = "" if key == "non_field_errors" else "/" + str(key).replace("~", "~0").replace("/", "~1")
            yield from _pointed(nested, pointer + step)
    elif isinstance(detail, list):
        for index, nested in enumerate(detail):
            # A list of messages belongs to this pointer; a list of dicts belongs to the pointers below it.
            yield from _pointed(nested, pointer if isinstance(nested, ErrorDetail) else f"{pointer}/{index}")
    else:
        yield {"pointer": pointer, "detail": str(detail)}


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem_page(400, "The request is not valid.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem_page(403, "This is not allowed.")


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return problem_page(404, f"Nothing is at {request.path}.")


def server_error(request: HttpRequest) -> HttpResponse:
    return problem_page(500, "The server failed.")


def problem_page(status: int, detail: str) -> HttpResponse:
    """Return a problem response for an error outside of DRF, for which Django would show an HTML page."""
    return HttpResponse(JSONRenderer().render(problem(status, detail)), status=status, content_type=CONTENT_TYPE)


class ProblemsMiddleware:
    """Replace Django's HTML error pages on `JSON_PATHS` with problems, also in debug mode and for a wrong host.

    Also answer OPTIONS, which no path supports, with 405 instead of 401, and remove it from the header `Allow`.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if not request.path_info.startswith(JSON_PATHS):
            return response
        if request.method == "OPTIONS" and response.status_code == 401:
            # No path supports OPTIONS. Browsers send preflights without a token, so a 401 would be misleading.
            refused = problem_page(405, 'Method "OPTIONS" not allowed.')
            refused["Allow"] = response["Allow"]
            response = refused
        is_page = response.get("Content-Type", "").startswith("text/html")
        if response.status_code >= 400 and is_page:
            allowed = response.get("Allow")
            response = problem_page(response.status_code, response.reason_phrase)
            if allowed is not None:
                response["Allow"] = allowed
        if "Allow" in response:
            # DRF's views list OPTIONS, which no path supports.
            response["Allow"] = ", ".join(name for name in response["Allow"].split(", ") if name != "OPTIONS")
        return response


class RequestLimitMiddleware:
    """Refuse a request whose head is out of bounds (`commerce.request_head`) or whose body is too large.

    A body larger than `DATA_UPLOAD_MAX_MEMORY_SIZE` gets 413, even if the view ignores the body. A larger chunked body
    gets 413 only if the view reads it, because its size is unknown before that.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if refusal := request.META.get(REFUSAL):
            return problem_page(*refusal)
        try:
            length_bytes = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            # Django treats a malformed length as no body.
            length_bytes = 0
        if length_bytes > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return _too_large()
        response = self._get_response(request)
        body = request.META.get("wsgi.input")
        return _too_large() if isinstance(body, ChunkedBody) and body.is_too_large else response


def _too_large() -> HttpResponse:
    return problem_page(413, f"The body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.")
