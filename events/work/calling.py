"""Call a provider over HTTP with JSON, and turn its answer into an outcome of leased work (`events.work`)."""

import time
from base64 import b64encode
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

import httpcore
import httpx
import msgspec
from django.conf import settings

from events.wire.foreign_text import cut
from events.work.kinds import Act
from events.work.models import WorkT
from events.work.outcomes import Failed, Outcome, ServiceUnavailable, TryAgain

CONNECT_TIMEOUT_S = 1.0
IDLE_S = 4.0
"""Seconds after which an idle connection is not used again. Many servers close theirs after 5 s."""
MAX_ANSWER_BYTES = 64 * 1024
ANSWER_LIMIT_CHARS = 200
"""Largest number of characters of an answer in an error message."""
SERVICE_STATUSES = {401, 403, 407, 429, 503}
"""HTTP statuses that concern this client or the whole service, and not a single call."""

REFUSED = "The provider refused the call"
"""The reason that people other than operators see if the provider refused a call (`CallRefused`).

It reveals no details.
"""

AnswerT = TypeVar("AnswerT")
_PART_BYTES = 4096
"""Number of bytes of a request that are written at once. The time limit is checked before each part."""
_UNREACHABLE = (
    *(httpcore.ConnectError, httpcore.ConnectTimeout),
    # The URL has no scheme of HTTP, or a host or a port that cannot exist.
    *(httpcore.UnsupportedProtocol, UnicodeError, OverflowError),
)
_encoder = msgspec.json.Encoder(decimal_format="number")


class OutcomeUnknown(Exception):
    """The provider may have done what the call says, or not. Ask the provider before the next attempt."""


class CallRefused(Exception):
    """The provider says that the call is wrong, so no repeat can succeed."""


class Provider(Generic[AnswerT]):
    """The HTTP interface of a provider. A worker opens it as a context manager, and calls it from several threads.

    A user and a password in the URL become basic auth. Proxies in environment variables are not used.
    """

    def __init__(self, *, url_setting: str, answer_type: type[AnswerT], timeout_s: float) -> None:
        """Create a client of the provider at the URL in the setting `url_setting`.

        `timeout_s` limits the time of a request and its whole answer, once the provider is connected.
        """
        url = httpx.URL(getattr(settings, url_setting))
        self._url_setting = url_setting
        self._url = url
        self._address = f"The provider at {url.copy_with(username=None, password=None)}"
        self._headers: dict[bytes | str, bytes | str] = {
            "Host": url.netloc,
            "User-Agent": f"python-httpcore/{httpcore.__version__}",
            "Accept": "application/json",
            # Without it, a server may compress its answer in any way.
            "Accept-Encoding": "identity",
        }
        if url.userinfo:
            user_and_password = f"{url.username}:{url.password}".encode()
            self._headers["Authorization"] = b"Basic " + b64encode(user_and_password)
        self._timeout_s = timeout_s
        self._decoder = msgspec.json.Decoder(answer_type)
        self._certificates = httpx.create_ssl_context(trust_env=False)
        self._idle: list[httpcore.ConnectionPool] = []
        """The clients that no thread uses, each with at most one connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for client in self._idle:
            client.close()

    def get(self, path: str) -> AnswerT | None:
        """Return the provider's answer; None if it does not know the path. Raises as `post` does."""
        return self._call("GET", path, answers={200}, unknown=404)

    def post(self, path: str, *, key: UUID, body: Any = None, answers: Collection[int]) -> AnswerT:
        """Send a POST request, and return the provider's answer, whose HTTP status is one of `answers`.

        `path` is percent-encoded, `key` is the idempotency key, and `body` becomes JSON; None sends no body.

        Raises:
            ServiceUnavailable: no URL is set, the provider cannot be reached, or the status is in `SERVICE_STATUSES`.
            CallRefused: the answer has another 4xx status, except 408.
            OutcomeUnknown: no complete answer came in time, or the answer is invalid or has any other status.
        """
        # A request without a body needs a Content-Length of 0.
        content = b"" if body is None else _encoder.encode(body)
        answer = self._call("POST", path, answers=answers, key=key, content=content)
        assert answer is not None
        return answer

    def _call(
        self,
        method: str,
        path: str,
        *,
        answers: Collection[int],
        unknown: int | None = None,
        key: UUID | None = None,
        content: bytes | None = None,
    ) -> AnswerT | None:
        if not self._url.host:
            raise ServiceUnavailable(f"{self._url_setting} is not set: set it to the provider's URL")
        what = f"{method} {path}"
        try:
            status, text = self._exchange(method, path, key=key, content=content)
        except _UNREACHABLE as error:
            raise ServiceUnavailable(f"{self._address} cannot be reached: {error}") from error
        except httpcore.TimeoutException as error:
            raise OutcomeUnknown(f"{what} got no answer within {self._timeout_s:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise OutcomeUnknown(f"{what} got no answer: {type(error).__name__} {error}".rstrip()) from error
        said = f"{what} was answered {status} {cut(text.decode(errors='replace'), ANSWER_LIMIT_CHARS)}"
        if status == unknown:
            return None
        if status in answers:
            try:
                return self._decoder.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise OutcomeUnknown(f"{said}: {error}") from error
        if status in SERVICE_STATUSES:
            raise ServiceUnavailable(said)
        if 400 <= status < 500 and status != 408:
            raise CallRefused(said)
        raise OutcomeUnknown(said)

    def _exchange(self, method: str, path: str, *, key: UUID | None, content: bytes | None) -> tuple[int, bytes]:
        """Send a request, and return the status and the body of the answer.

        Raises the exceptions of httpcore, and UnicodeError or OverflowError if the host or the port cannot exist.
        """
        headers = dict(self._headers)
        if key:
            headers["Idempotency-Key"] = str(key)
        if content:
            headers["Content-Type"] = "application/json"
        url = httpcore.URL(
            scheme=self._url.raw_scheme,
            host=self._url.raw_host,
            port=self._url.port,
            target=self._url.raw_path.rstrip(b"/") + path.encode(),
        )
        timeouts = {"connect": min(CONNECT_TIMEOUT_S, self._timeout_s), "pool": self._timeout_s}
        parts: list[bytes] = []
        with (
            self._client() as client,
            client.stream(method, url, headers=headers, content=content, extensions={"timeout": timeouts}) as response,
        ):
            size = 0
            for part in response.iter_stream():
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise httpcore.ReadError(f"The answer is longer than {MAX_ANSWER_BYTES} bytes")
        return response.status, b"".join(parts)

    @contextmanager
    def _client(self) -> Iterator[httpcore.ConnectionPool]:
        """Lend a client to the calling thread: an idle one or, if there is none, a new one."""
        try:
            # A list's pop and append are atomic.
            client = self._idle.pop()
        except IndexError:
            # Not one pool for all threads: for each request, a pool looks at every connection.
            client = httpcore.ConnectionPool(
                ssl_context=self._certificates,
                max_connections=1,
                keepalive_expiry=IDLE_S,
                network_backend=_LimitedBackend(self._timeout_s),
            )
        try:
            yield client
        finally:
            self._idle.append(client)


class _LimitedBackend(httpcore.SyncBackend):
    """Opens each connection as a `_LimitedConnection` with the limit `limit_s`."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def connect_tcp(self, *address: Any, **options: Any) -> httpcore.NetworkStream:
        return _LimitedConnection(super().connect_tcp(*address, **options), self._limit_s)


class _LimitedConnection(httpcore.NetworkStream):
    """A connection on which each request takes at most `limit_s` seconds, with its whole answer.

    This limit replaces the timeouts of httpcore, which limit a single read or write. With them, an answer could trickle
    for any time.
    """

    def __init__(self, connection: httpcore.NetworkStream, limit_s: float) -> None:
        self._connection = connection
        self._limit_s = limit_s
        self._ends_at = 0.0
        """End of the time for the current request, by the monotonic clock."""
        self._next_write_begins = True
        """Whether the next write begins a request, because the connection is new or an answer was read."""

    def close(self) -> None:
        self._connection.close()

    def get_extra_info(self, info: str) -> Any:
        return self._connection.get_extra_info(info)

    def start_tls(self, *context: Any, **options: Any) -> httpcore.NetworkStream:
        return _LimitedConnection(self._connection.start_tls(*context, **options), self._limit_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._next_write_begins:
            self._next_write_begins = False
            self._ends_at = time.monotonic() + self._limit_s
        for start in range(0, len(buffer), _PART_BYTES):
            self._connection.write(buffer[start : start + _PART_BYTES], self._seconds_left())

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._next_write_begins = True
        return self._connection.read(max_bytes, self._seconds_left())

    def _seconds_left(self) -> float:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left


def longest_call_s(timeout_s: float) -> float:
    """Return the longest time in seconds of one call: connecting, the TLS handshake, and the request with its answer.

    `timeout_s` limits only the request with its answer; connecting and the handshake have `CONNECT_TIMEOUT_S` each. The
    DNS lookup is not included, nor are the attempts to connect to further addresses of the same host.
    """
    return 2 * CONNECT_TIMEOUT_S + timeout_s


def judged(act: Act[WorkT]) -> Act[WorkT]:
    """Return a function that calls `act`, and that turns two of its exceptions into outcomes.

    The function returns TryAgain if `act` raises OutcomeUnknown, and Failed if `act` raises CallRefused.
    """

    def do(work: WorkT) -> Outcome:
        try:
            return act(work)
        except OutcomeUnknown as error:
            return TryAgain(str(error))
        except CallRefused as error:
            return Failed(str(error), REFUSED)

    return do
