import os
from collections.abc import Iterable
from io import BytesIO
from typing import IO, Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "commerce.settings")
_django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Django, told how long a body in chunks is; and an answer that comes before its request's end closes the
    connection, and says so.
    """
    length = environ.get("CONTENT_LENGTH")
    if "HTTP_TRANSFER_ENCODING" in environ:
        # One byte more than is allowed is enough to be refused.
        chunks = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        environ |= {"wsgi.input": BytesIO(chunks), "CONTENT_LENGTH": str(len(chunks))}
        is_whole = len(chunks) <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        return _django(environ, start_response if is_whole else _closing(start_response))
    if length and length != "0":
        environ["wsgi.input"] = body = Body(environ["wsgi.input"], length=int(length))
        return _django(environ, _closing(start_response, unless=body))
    return _django(environ, start_response)


class Body:
    """A request's body that knows how much of it has not been read."""

    def __init__(self, stream: IO[bytes], *, length: int) -> None:
        self._stream = stream
        self.unread = length

    def read(self, size: int = -1) -> bytes:
        return self._count(self._stream.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._count(self._stream.readline(size))

    def _count(self, part: bytes) -> bytes:
        self.unread -= len(part)
        return part


def _closing(start_response: Any, *, unless: Body | None = None) -> Any:
    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        if unless is None or unless.unread > 0:
            headers.append(("Connection", "close"))
        return start_response(status, headers, *exc_info)

    return start
