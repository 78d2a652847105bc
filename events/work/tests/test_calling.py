"""The outcome that follows from each answer of a provider."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from events.work.calling import MAX_ANSWER_BYTES, REFUSED, CallRefused, OutcomeUnknown, Provider, judged, longest_call_s
from events.work.outcomes import Failed, Outcome, ServiceUnavailable, TryAgain

TIMEOUT_S = 0.5


class State(msgspec.Struct):
    state: str


class Answering(ThreadingHTTPServer):
    """A server that answers each request with `status` and `body`. If `send` is set, this function does so instead."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status, self.body = 200, b'{"state": "good"}'
        self.send: Callable[[Any], None] | None = None
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        self.connections = 0
        super().__init__(("127.0.0.1", 0), Handler)

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answering

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = (self.headers["Idempotency-Key"], self.headers["Authorization"])
        self.server.requests.append((self.command, self.path, headers[0], body + (headers[1] or "").encode()))
        if self.server.send:
            self.server.send(self.wfile)
            self.close_connection = True
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET

    def log_message(self, *words: object) -> None:
        """Write nothing."""


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def provider(server: Answering, settings: Any) -> Iterator[Provider[State]]:
    settings.SOME_PROVIDER_URL = f"http://shop:pass%20word@127.0.0.1:{server.server_port}/v1"
    with Provider(url_setting="SOME_PROVIDER_URL", answer_type=State, timeout_s=TIMEOUT_S) as provider:
        yield provider


def post(provider: Provider[State]) -> State:
    return provider.post("/things", key=uuid4(), body={"n": 1}, answers={200, 402})


def test_a_call_has_key_body_and_basic_auth(server: Answering, provider: Provider[State]) -> None:
    key = uuid4()
    assert provider.post("/things", key=key, body={"n": 1}, answers={200}) == State("good")
    assert server.requests == [("POST", "/v1/things", str(key), b'{"n":1}Basic c2hvcDpwYXNzIHdvcmQ=')]
    server.status = 402
    assert post(provider) == State("good")


@pytest.mark.parametrize(
    ("status", "error"),
    [(code, ServiceUnavailable) for code in (401, 403, 407, 429, 503)]
    + [(code, CallRefused) for code in (400, 404, 409, 410, 418, 422)]
    + [(code, OutcomeUnknown) for code in (201, 204, 301, 302, 408, 500, 502, 504)],
)
def test_a_status_tells_what_has_become_of_a_call(
    server: Answering, provider: Provider[State], status: int, error: type[Exception]
) -> None:
    server.status, server.body = status, b"" if status == 204 else b"because"
    with pytest.raises(error, match=f"POST /things was answered {status}"):
        post(provider)


@pytest.mark.parametrize("body", [b"", b"{", b'{"state": 1}', b"[]", b"\xff", b"x" * (MAX_ANSWER_BYTES + 1)])
def test_an_invalid_answer_leaves_the_outcome_unknown(
    server: Answering, provider: Provider[State], body: bytes
) -> None:
    server.body = body
    with pytest.raises(OutcomeUnknown):
        post(provider)


def drip_after(beginning: bytes) -> Callable[[Any], None]:
    """Return a function that sends `beginning`, and then a space in each quarter of the timeout."""

    def drip(out: Any) -> None:
        out.write(beginning)
        until = time.monotonic() + 20 * TIMEOUT_S
        try:
            while time.monotonic() < until:
                out.write(b" ")
                out.flush()
                time.sleep(TIMEOUT_S / 4)
        except OSError:
            return

    return drip


def be_silent(out: Any) -> None:
    time.sleep(2 * TIMEOUT_S)


def say_nothing(out: Any) -> None:
    """Answer nothing, so that the server closes the connection."""


def talk_nonsense(out: Any) -> None:
    out.write(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("beginning", [b"HTTP", b"HTTP/1.1 200 OK\r\nX: ", b'HTTP/1.1 200 OK\r\n\r\n{"state": "good"}'])
@pytest.mark.parametrize("earlier_calls", [0, 1])
def test_an_answer_that_trickles_is_cut_off(
    server: Answering, provider: Provider[State], beginning: bytes, earlier_calls: int
) -> None:
    """A call must not outlast its lease. Otherwise another worker would repeat a call that still runs."""
    for _ in range(earlier_calls):
        post(provider)
    server.send = drip_after(beginning)
    begun = time.monotonic()
    with pytest.raises(OutcomeUnknown, match=r"more than 0\.5 s"):
        post(provider)
    assert time.monotonic() - begun < longest_call_s(TIMEOUT_S) + 1
    server.send = None
    assert post(provider) == State("good")


def test_short_lived_threads_share_the_connections(server: Answering, provider: Provider[State]) -> None:
    for _ in range(20):
        with ThreadPoolExecutor(max_workers=2) as threads:
            assert list(threads.map(lambda _: post(provider), range(4))) == [State("good")] * 4
    assert server.connections <= 2


@pytest.mark.parametrize("send", [be_silent, talk_nonsense, say_nothing])
def test_a_broken_answer_leaves_the_outcome_unknown(
    server: Answering, provider: Provider[State], send: Callable[[Any], None]
) -> None:
    server.send = send
    begun = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        post(provider)
    assert time.monotonic() - begun < 10 * TIMEOUT_S


def test_a_question_may_have_no_answer(server: Answering, provider: Provider[State]) -> None:
    assert provider.get("/things/1") == State("good")
    server.status = 404
    assert provider.get("/things/1") is None
    server.status = 500
    with pytest.raises(OutcomeUnknown):
        provider.get("/things/1")


@pytest.mark.parametrize("url", ["", "http://shop:pass-word@127.0.0.1:1", "http://nowhere.invalid"])
def test_a_provider_that_cannot_be_reached_is_unavailable(settings: Any, url: str) -> None:
    settings.SOME_PROVIDER_URL = url
    with (
        Provider(url_setting="SOME_PROVIDER_URL", answer_type=State, timeout_s=1) as provider,
        pytest.raises(ServiceUnavailable) as raised,
    ):
        post(provider)
    assert "pass-word" not in str(raised.value)
    assert ("SOME_PROVIDER_URL" in str(raised.value)) == (url == "")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(OutcomeUnknown("no answer"), TryAgain("no answer")), (CallRefused("bad"), Failed("bad", REFUSED))],
)
def test_errors_of_calls_become_outcomes(error: Exception, outcome: Outcome) -> None:
    def act(work: Any) -> Outcome:
        raise error

    act_on_it: Callable[[Any], Outcome] = judged(act)
    assert act_on_it(None) == outcome
