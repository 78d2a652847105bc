"""Response headers for browsers, in addition to those of Django's SecurityMiddleware."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

# Swagger UI and admin pages have inline scripts.
PAGES = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# Unfold's Alpine.js evaluates expressions in the attributes of templates. Alpine's build without eval does not support
# globals such as `window.location`, which the templates use.
ADMIN_PAGES = PAGES.replace("'unsafe-inline';", "'unsafe-inline' 'unsafe-eval';", 1)
DATA = "default-src 'none'; frame-ancestors 'none'"


class SecurityHeadersMiddleware:
    """Add `Content-Security-Policy`, by the kind of response, and `Cache-Control: no-store`.

    If the response already has one of these headers, that header stays as it is.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        is_page = response.get("Content-Type", "").startswith("text/html")
        in_admin = request.path_info.startswith(f"/{settings.ADMIN_PATH}")
        policy = DATA if not is_page else ADMIN_PAGES if in_admin else PAGES
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("Cache-Control", "no-store")
        return response
