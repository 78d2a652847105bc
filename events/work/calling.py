"""Call a provider over HTTP with JSON, and turn its answer into an outcome of leased work (`events.work`)."""

import socket
import ssl
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

import httpx
import msgspec
from django.conf import settings

from events.wire.foreign_text import cut
from events.work.cutting import cut_after
from events.work.kinds import Act
from events.work.models import WorkT
from events.work.outcomes import Failed, Outcome, ServiceUnavailable, TryAgain

CONNECT_TIMEOUT_S = 1.0
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
        self._url_setting = url_setting
        url = httpx.URL(getattr(settings, url_setting))
        self._address = f"The provider at {url.copy_with(username=None, password=None)}"
        self._url = url
        self._timeout_s = timeout_s
        self._decoder = msgspec.json.Decoder(answer_type)
        self._certificates = httpx.create_ssl_context(trust_env=False)
        self._idle: list[_Connection] = []
        """The connections that no thread uses."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self._idle:
            connection.close()

    def get(self, path: str) -> AnswerT | None:
        """Return the provider's answer; None if it does not know the path. Raises as `post` does."""
        return self._call("GET", path, answers={200}, unknown=404)

    def post(self, path: str, *, key: UUID, body: Any = None, answers: Collection[int]) -> AnswerT:
        """Send a POST request, and return the provider's answer, whose HTTP status is one of `answers`.

        `key` is the idempotency key, and `body` becomes JSON; None sends no body.

        Raises:
            ServiceUnavailable: no URL is set, the provider cannot be reached, or the status is in `SERVICE_STATUSES`.
            CallRefused: the answer has another 4xx status, except 408.
            OutcomeUnknown: no complete answer came in time, or the answer is invalid or has any other status.
        """
        answer = self._call("POST", path, answers=answers, key=key, body=body)
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
        body: Any = None,
    ) -> AnswerT | None:
        if not self._url.host:
            raise ServiceUnavailable(f"{self._url_setting} is not set: set it to the provider's URL")
        headers = {"Idempotency-Key": str(key)} if key else {}
        what = f"{method} {path}"
        content = None
        if body is not None:
            content = _encoder.encode(body)
            headers["Content-Type"] = "application/json"
        try:
            with self._connection() as connection:
                response, text = connection.exchange(method, path, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServiceUnavailable(f"{self._address} cannot be reached: {error}") from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"{what} got no answer: {type(error).__name__} {error}".rstrip()) from error
        status = response.status_code
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

    @contextmanager
    def _connection(self) -> "Iterator[_Connection]":
        """Lend a connection to the calling thread: an idle one or, if there is none, a new one."""
        try:
            # A list's pop and append are atomic.
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection(self._url, self._timeout_s, self._certificates)
        try:
            yield connection
        finally:
            self._idle.append(connection)


class _Connection:
    """An HTTP client with one connection at a time, which is cut if an answer takes too long."""

    def __init__(self, url: httpx.URL, timeout_s: float, certificates: ssl.SSLContext) -> None:
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            limits=httpx.Limits(max_connections=1),
            trust_env=False,
            verify=certificates,
        )
        self._socket: socket.socket | None = None
        self.close = self._client.close

    def exchange(
        self, method: str, path: str, *, content: bytes | None, headers: dict[str, str]
    ) -> tuple[httpx.Response, bytes]:
        """Send a request, and return the answer with its body. Raises httpx.HTTPError.

        `timeout_s` limits the time of the request and its whole answer. Connecting and agreeing on TLS do not count.
        """
        late = threading.Event()
        with ExitStack() as limit:

            def trace(event: str, info: dict[str, Any]) -> None:
                """Remember the socket of a new connection. Start the time limit when the request begins."""
                nonlocal late
                if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                    self._socket = info["return_value"].get_extra_info("socket")
                elif event == "http11.send_request_headers.started":
                    late = limit.enter_context(cut_after(self._timeout_s, self._socket))

            # httpx calls `trace` at each step of a request.
            asked = self._client.stream(method, path, content=content, headers=headers, extensions={"trace": trace})
            try:
                with asked as response:
                    text = _body(response)
            except httpx.HTTPError:
                if not late.is_set():
                    raise
            # A body without a length looks complete when its connection is cut.
            if late.is_set():
                raise httpx.ReadError(f"It took more than {self._timeout_s:g} s")
        return response, text


def _body(response: httpx.Response) -> bytes:
    text = b""
    for part in response.iter_bytes():
        text += part
        if len(text) > MAX_ANSWER_BYTES:
            raise httpx.ReadError(f"The answer is longer than {MAX_ANSWER_BYTES} bytes")
    return text


def longest_call_s(timeout_s: float) -> float:
    """Return the longest time in seconds of one call: connecting, the TLS handshake, and the request with its answer.

    It does not include the DNS lookup, or the attempts to connect to further addresses of the same host.
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
