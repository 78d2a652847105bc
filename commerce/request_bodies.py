"""Request bodies that are read only when the application asks for them."""

from io import BytesIO
from typing import IO

from django.conf import settings
from django.core.exceptions import RequestDataTooBig

PART_BYTES = 64 * 1024
"""Number of bytes that `SizedBody.discard` reads at once."""


class SizedBody:
    """A request's body with a declared length (`Content-Length`). It can discard what is still unread."""

    def __init__(self, stream: IO[bytes], *, length: int) -> None:
        self._stream = stream
        self._unread = length

    @property
    def is_read(self) -> bool:
        return self._unread <= 0

    def read(self, size: int = -1) -> bytes:
        return self._count(self._stream.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._count(self._stream.readline(size))

    def discard(self, *, up_to: int) -> None:
        """Read and drop the unread rest of the body. If this rest has more than `up_to` bytes, do nothing."""
        if self._unread <= up_to:
            while not self.is_read and self.read(PART_BYTES):
                pass

    def _count(self, part: bytes) -> bytes:
        self._unread -= len(part)
        return part


class ChunkedBody:
    """A request's body in chunks, without a declared length. The first read fetches all of it.

    Reads raise RequestDataTooBig if the body is larger than `DATA_UPLOAD_MAX_MEMORY_SIZE`.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.is_read = False
        self.is_too_large = False

    def read(self, size: int = -1) -> bytes:
        return self._fetched().read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._fetched().readline(size)

    def _fetched(self) -> IO[bytes]:
        if not (self.is_read or self.is_too_large):
            limit_bytes = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
            # One byte over the limit is enough to reject the body.
            fetched = self._stream.read(limit_bytes + 1)
            self.is_too_large = len(fetched) > limit_bytes
            self.is_read = not self.is_too_large
            self._stream = BytesIO(fetched)
        if self.is_too_large:
            raise RequestDataTooBig("The body in chunks is larger than DATA_UPLOAD_MAX_MEMORY_SIZE.")
        return self._stream
