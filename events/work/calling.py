"""Call a provider over HTTP with JSON, and turn its answer into an outcome of leased work (`events.work`)."""

import time
from collections.abc import Collection
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

import httpx
import msgspec
from django.conf import settings

from events.wire.foreign_text import cut
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
"""Reason that people read for a call that would fail again at each repeat."""

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

    def __init__(self, *, url_setting: str, answer_type: type[AnswerT], timeout_s: float, connections: int) -> None:
        """Create a client of the provider at the URL in the setting `url_setting`.

        `timeout_s` limits the wait for an answer. `connections` is the number of threads that call at a time.
        """
        self._url_setting = url_setting
        url = httpx.URL(getattr(settings, url_setting))
        self._address = f"The provider at {url.copy_with(username=None, password=None)}"
        self._timeout_s = timeout_s
        self._decoder = msgspec.json.Decoder(answer_type)
        self._client = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def get(self, path: str) -> AnswerT | None:
        """Return the provider's answer; None if it does not know the path. Raises as `post` does."""
        return self._call("GET", path, answers={200}, unknown=404)

    def post(self, path: str, *, key: UUID, body: Any = None, answers: Collection[int]) -> AnswerT:
        """Send a POST request, and return the provider's answer, whose HTTP status is one of `answers`.

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
        if not self._client.base_url.host:
            raise ServiceUnavailable(f"{self._url_setting} is not set: set it to the provider's URL")
        headers = {"Idempotency-Key": str(key)} if key else {}
        what = f"{method} {path}"
        content = None
        if body is not None:
            content = _encoder.encode(body)
            headers["Content-Type"] = "application/json"
        try:
            with self._client.stream(method, path, content=content, headers=headers) as response:
                text = self._read(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
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

    def _read(self, response: httpx.Response) -> bytes:
        """Return the body. The client's timeout limits the wait for each part; this method limits the whole wait."""
        until = time.monotonic() + self._timeout_s
        text = b""
        for part in response.iter_bytes():
            text += part
            if time.monotonic() > until or len(text) > MAX_ANSWER_BYTES:
                raise httpx.ReadError(f"The answer is longer than {MAX_ANSWER_BYTES} bytes or takes too long")
        return text


def longest_call_s(timeout_s: float) -> float:
    """Return the longest time of one call in seconds: connecting, the wait for the answer, and reading it."""
    return CONNECT_TIMEOUT_S + 2 * timeout_s


def judged(act: Act[WorkT]) -> Act[WorkT]:
    """Return a function that calls `act`. It turns OutcomeUnknown into TryAgain, and CallRefused into Failed."""

    def do(work: WorkT) -> Outcome:
        try:
            return act(work)
        except OutcomeUnknown as error:
            return TryAgain(str(error))
        except CallRefused as error:
            return Failed(str(error), REFUSED)

    return do
