import os
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from commerce import request_head
from commerce.request_bodies import ChunkedBody, SizedBody

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
_django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Call Django with a body that Django can read, even if the client sends it in chunks.

    If the view has not read the body to its end, the response closes the connection with `Connection: close`. A client
    that is still sending may then lose the response. Behind a trusted proxy, which has the whole body already, the rest
    of a body with a declared length is read before the response. A rest of more than `DATA_UPLOAD_MAX_MEMORY_SIZE`
    bytes is not read.
    """
    request_head.check(environ)
    length = environ.get("CONTENT_LENGTH")
    body: SizedBody | ChunkedBody
    if "HTTP_TRANSFER_ENCODING" in environ:
        body = ChunkedBody(environ["wsgi.input"])
        # Django ignores a body without a length. With this one it reads up to the limit; ChunkedBody checks the size.
        environ["CONTENT_LENGTH"] = str(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    elif length and length != "0":
        body = SizedBody(environ["wsgi.input"], length=int(length))
    else:
        return _django(environ, start_response)
    environ["wsgi.input"] = body
    return _django(environ, _closing(start_response, unless_read=body))


def _closing(start_response: Any, *, unless_read: SizedBody | ChunkedBody) -> Any:
    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        if settings.TRUSTED_PROXIES and isinstance(unless_read, SizedBody):
            unless_read.discard(up_to=settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        if not unless_read.is_read:
            headers.append(("Connection", "close"))
        return start_response(status, headers, *exc_info)

    return start
