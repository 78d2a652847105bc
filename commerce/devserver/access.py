"""Access to the controls of `make run`: only this site's page, in a browser on this machine, may use them."""

from collections.abc import Callable
from functools import wraps
from ipaddress import ip_address

from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.views.decorators.http import require_POST

from commerce.api.problems import problem_page

LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}
View = Callable[[HttpRequest], HttpResponse]


def from_this_machine(view: View) -> View:
    """Let the view accept only POST requests of this site's page in a browser on this machine.

    A request from elsewhere is answered with 403, and another method with 405.

    The connection must come from a loopback address, without a proxy header. The Host must be local, because the name
    of another site can resolve to this machine (DNS rebinding). Neither Origin nor Sec-Fetch-Site may name another
    site. Django's CSRF middleware also requires the token, which only this site's page has.
    """
    only_post = require_POST(view)

    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if reason := _refusal(request):
            return problem_page(403, reason)
        return only_post(request)

    return answer


def _refusal(request: HttpRequest) -> str | None:
    headers = request.headers
    if not _is_loopback(request.META.get("REMOTE_ADDR", "")) or "X-Forwarded-For" in headers or "Forwarded" in headers:
        return "The controls of make run are for a browser on this machine."
    host = request.get_host()
    if split_domain_port(host)[0] not in LOCAL_HOSTS:
        return "The controls of make run answer at localhost, 127.0.0.1 and [::1] only."
    own_origin = f"{request.scheme}://{host}"
    if headers.get("Origin", own_origin) != own_origin or headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return "The controls of make run accept requests of their own page only."
    return None


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
