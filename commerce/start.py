"""`GET /`: the start page, as HTML for people and as JSON for programs."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import MediaType
from django.shortcuts import render
from django.urls import reverse
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.views.decorators.csrf import csrf_exempt

from commerce.accounts import demo_accounts
from commerce.api.json import JSONRenderer
from commerce.api.problems import problem_page

PAGES = ["devserver/start.html", "commerce/start.html"]
"""Templates of the page. The first exists only under `make run`, where the page also demonstrates the product."""
DEMO_ACCOUNTS = {account.name: account.password for account in demo_accounts.ACCOUNTS}
"""Passwords of the demo accounts by username."""
LINKS = {
    "admin": "admin:index",
    "apiDocumentation": "docs",
    "openapi": "schema",
    "asyncapi": "asyncapi",
    "healthLive": "live",
    "healthReady": "ready",
}
"""Names of the URL patterns that the start page links to, by their keys in its JSON."""


@csrf_exempt
def start(request: HttpRequest) -> HttpResponse:
    if request.method not in ("GET", "HEAD"):
        refusal = problem_page(405, f'Method "{request.method}" not allowed.')
        refusal["Allow"] = "GET, HEAD"
        return refusal
    response = _page(request) if prefers_page(request.headers.get("Accept", "*/*")) else _links()
    patch_vary_headers(response, ["Accept"])
    return response


def prefers_page(accept: str) -> bool:
    """Return whether an `Accept` header (RFC 9110, section 12.5.1) ranks HTML above JSON.

    At equal quality the more specific media range wins, and JSON wins a tie. So `*/*`, which curl and most HTTP
    libraries send, gets JSON, as does a header that accepts neither.
    """
    try:
        ranges = [MediaType(part) for part in accept.split(",") if part.strip()]
    except (ValueError, LookupError):
        return False
    return _rank(ranges, "text", "html") > _rank(ranges, "application", "json")


def _rank(ranges: list[MediaType], main: str, sub: str) -> tuple[float, int]:
    """Return (quality, specificity) of the most specific media range that includes `main/sub`.

    Return (0, 0) if no range includes it, or if the quality of that range is 0, which excludes the media type.
    """
    matching = [one for one in ranges if one.main_type in (main, "*") and one.sub_type in (sub, "*")]
    best = max(matching, key=lambda one: one.specificity, default=None)
    return (best.quality, best.specificity) if best and best.quality else (0.0, 0)


def _page(request: HttpRequest) -> HttpResponse:
    language = translation.get_language_from_request(request)
    with translation.override(language):
        accounts = DEMO_ACCOUNTS if settings.DEBUG else {}
        response = render(request, PAGES, {"links": links(), "accounts": accounts, "mails": folder_of_mails()})
    response["Content-Language"] = language
    patch_vary_headers(response, ["Accept-Language", "Cookie"])
    return response


def _links() -> HttpResponse:
    body: dict[str, Any] = links()
    if settings.DEBUG:
        body["demoAccounts"] = [{"username": name, "password": password} for name, password in DEMO_ACCOUNTS.items()]
    if mails := folder_of_mails():
        body["mails"] = mails
    return HttpResponse(JSONRenderer().render(body), content_type=JSONRenderer.media_type)


def folder_of_mails() -> str | None:
    """Return the folder to which e-mails are written in development; None in production or if EMAIL_URL names none."""
    return settings.EMAIL_FILE_PATH if settings.DEBUG else None


def links() -> dict[str, str]:
    """Return the paths that the start page links to, by their keys in its JSON."""
    return {name: reverse(path) for name, path in LINKS.items()}


def add_start(result: dict[str, Any], **context: Any) -> dict[str, Any]:
    """Add `GET /`, which is not a DRF view, to the OpenAPI document `result`. drf-spectacular calls this hook."""
    accounts = {
        "type": "array",
        "description": "In development only.",
        "items": {
            "type": "object",
            "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
            "required": ["username", "password"],
        },
    }
    mails = {"type": "string", "description": "In development only: the folder to which e-mails are written."}
    body = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in LINKS} | {"demoAccounts": accounts, "mails": mails},
        "required": list(LINKS),
    }
    operation = {
        "operationId": "getLinks",
        "tags": ["Operation"],
        "summary": "Where to go from here",
        "responses": {
            "200": {
                "description": "Paths on this site. A client whose `Accept` ranks HTML above JSON gets a page.",
                "content": {"application/json": {"schema": body}, "text/html": {"schema": {"type": "string"}}},
            }
        },
    }
    result["paths"] = {"/": {"get": operation}} | result["paths"]
    return result
