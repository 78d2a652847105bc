"""Check the request line and the headers before Django reads them.

Django parses `Content-Type` when it creates the request object, before any middleware runs. Django's parser takes
quadratic time, and raises an error on some extended parameters (RFC 2231). With a charset in this header, a client
could also choose the codec by which Django decodes the query and the form fields.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_TARGET_CHARS = 8 * 1024
"""Largest number of characters of the path, and of the query string."""
MAX_HEADER_CHARS = 8 * 1024
"""Largest number of characters of one header's value."""
MAX_MEDIA_TYPE_CHARS = 1024
"""Largest number of characters of `Content-Type` and of `Accept`.

Django and the REST framework parse these headers in quadratic time.
"""
REFUSAL = "commerce.refusal"
"""Key in the WSGI environment under which `check` stores a `Refusal` for `RequestLimitMiddleware`."""

_CHARSET = re.compile(r"charset\s*=\s*([^;\s]*)", re.IGNORECASE)


class Refusal(NamedTuple):
    """The status and the text of the response to a request that `check` refuses."""

    status: int
    detail: str


def check(environ: dict[str, Any]) -> None:
    """Replace every forbidden part of the request's head: the path with `/`, another part with an empty text.

    Store a `Refusal` for the first of them in `environ`, under the key `REFUSAL`.
    """
    for name, refusal in list(_problems(environ)):
        environ[name] = "/" if name == "PATH_INFO" else ""
        environ.setdefault(REFUSAL, refusal)


def _problems(environ: dict[str, Any]) -> Iterator[tuple[str, Refusal]]:
    for name in ("PATH_INFO", "QUERY_STRING"):
        if len(environ.get(name, "")) > MAX_TARGET_CHARS:
            yield name, Refusal(414, f"The path and the query may have {MAX_TARGET_CHARS} characters each.")
    for name, value in environ.items():
        limit = MAX_MEDIA_TYPE_CHARS if name in ("CONTENT_TYPE", "HTTP_ACCEPT") else MAX_HEADER_CHARS
        if name.startswith(("HTTP_", "CONTENT_TYPE")) and len(value) > limit:
            header = name.removeprefix("HTTP_").replace("_", "-").title()
            yield name, Refusal(431, f"The header {header} has more than {limit} characters.")
    content_type = environ.get("CONTENT_TYPE", "")
    if "*" in content_type:
        yield "CONTENT_TYPE", Refusal(400, "Parameters of the Content-Type header may not contain an asterisk.")
    if any(charset.strip("\"'").lower() not in ("utf-8", "utf8") for charset in _CHARSET.findall(content_type)):
        yield "CONTENT_TYPE", Refusal(415, "The charset of the Content-Type header must be utf-8.")
