"""The outcome that follows from each answer of a provider."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
import trustme

from events.work.calling import MAX_ANSWER_BYTES, REFUSED, CallRefused, OutcomeUnknown, Provider, judged, longest_call_s
from events.work.outcomes import Failed, Outcome, ServiceUnavailable, TryAgain
from testkit.waiting import wait_until

TIMEOUT_S = 0.5


class State(msgspec.Struct):
    state: str


class Answering(ThreadingHTTPServer):
    """A server that answers each request with `status` and `body`. If `send` is set, this function does so instead."""

    daemon_threads = True

    def __init__(self, authority: trustme.CA | None = None) -> None:
        """Create a server. With `authority`, it speaks TLS with a certificate of this authority."""
        self.status, self.body = 200, b'{"state": "good"}'
        self.send: Callable[[Any], None] | None = None
        self.closes = False
        """Whether the server closes each connection after its first answer, without saying so in the answer."""
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme, self.authority = "https" if authority else "http", authority
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            self.socket = context.wrap_socket(self.socket, server_side=True)

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
        self.server.headers.append(dict(self.headers))
        if self.server.send:
            self.server.send(self.wfile)
            self.close_connection = True
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)
        self.close_connection = self.close_connection or self.server.closes

    do_POST = do_GET

    def log_message(self, *words: object) -> None:
        """Write nothing."""


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Return a running server. It speaks TLS if a test's indirect parameter for this fixture is "https"."""
    authority = None
    if getattr(request, "param", "http") == "https":
        authority = trustme.CA()
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: trusting)
    with Answering(authority) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def provider(server: Answering, settings: Any) -> Iterator[Provider[State]]:
    settings.SOME_PROVIDER_URL = f"{server.scheme}://shop:pass%20word@127.0.0.1:{server.server_port}/v1/"
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


def test_the_headers_of_a_call_are_those_of_http(server: Answering, provider: Provider[State]) -> None:
    provider.get("/things/1")
    provider.post("/things/1/undo", key=uuid4(), answers={200})
    post(provider)
    host = f"127.0.0.1:{server.server_port}"
    for headers in server.headers:
        assert (headers["Host"], headers["Accept"], headers["Accept-Encoding"]) == (
            host,
            "application/json",
            "identity",
        )
    bodies = [(headers.get("Content-Length"), headers.get("Content-Type")) for headers in server.headers]
    assert bodies == [(None, None), ("0", None), ("7", "application/json")]


@pytest.mark.parametrize("server", ["https"], indirect=True)
def test_the_authority_of_the_mail_server_is_not_trusted(
    server: Answering, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    # This variable is for the mail server, whose authority must not vouch for a provider.
    assert server.authority is not None
    server.authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    settings.SOME_PROVIDER_URL = f"https://127.0.0.1:{server.server_port}"
    with (
        Provider(url_setting="SOME_PROVIDER_URL", answer_type=State, timeout_s=1) as provider,
        pytest.raises(ServiceUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        post(provider)


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


def drip(piece: bytes = b" ", *, after: bytes = b"") -> Callable[[Any], None]:
    """Return a function that sends `after`, and then `piece` four times in each timeout, for up to 20 timeouts."""

    def send(out: Any) -> None:
        out.write(after)
        until = time.monotonic() + 20 * TIMEOUT_S
        try:
            while time.monotonic() < until:
                out.write(piece)
                out.flush()
                time.sleep(TIMEOUT_S / 4)
        except OSError:
            return

    return send


def be_silent(out: Any) -> None:
    time.sleep(2 * TIMEOUT_S)


def say_nothing(out: Any) -> None:
    """Answer nothing, so that the server closes the connection."""


def talk_nonsense(out: Any) -> None:
    out.write(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize(
    "send",
    [
        drip(after=b"HTTP"),
        drip(after=b"HTTP/1.1 200 OK\r\nX: "),
        drip(after=b'HTTP/1.1 200 OK\r\n\r\n{"state": "good"}'),
        drip(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["the status", "a header", "the body", "hints"],
)
@pytest.mark.parametrize("earlier_calls", [0, 1])
@pytest.mark.parametrize("server", ["http", "https"], indirect=True)
def test_an_answer_that_trickles_is_cut_off(
    server: Answering, provider: Provider[State], send: Callable[[Any], None], earlier_calls: int
) -> None:
    """A call must not outlast its lease. Otherwise another worker would repeat a call that still runs."""
    for _ in range(earlier_calls):
        post(provider)
    server.send = send
    begun = time.monotonic()
    with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.5 s"):
        post(provider)
    assert time.monotonic() - begun < longest_call_s(TIMEOUT_S) + 1
    server.send = None
    assert post(provider) == State("good")


def test_a_provider_that_reads_nothing_is_cut_off(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.SOME_PROVIDER_URL = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        with (
            Provider(url_setting="SOME_PROVIDER_URL", answer_type=State, timeout_s=TIMEOUT_S) as provider,
            pytest.raises(OutcomeUnknown, match=r"no answer within 0\.5 s"),
        ):
            provider.post("/things", key=uuid4(), body={"text": "x" * 20_000_000}, answers={200})
        assert time.monotonic() - begun < longest_call_s(TIMEOUT_S) + 1


@pytest.mark.parametrize("server", ["http", "https"], indirect=True)
def test_a_connection_that_was_closed_while_idle_is_replaced(server: Answering, provider: Provider[State]) -> None:
    server.closes = True
    # The server's thread ends when it has closed the connection.
    others = threading.active_count()
    for number in range(1, 4):
        assert post(provider) == State("good")
        wait_until(lambda: threading.active_count() <= others)
        assert server.connections == number


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


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://shop:pass-word@127.0.0.1:1", "http://nowhere.invalid", "ftp://shop:pass-word@127.0.0.1:1"),
        *(
            "//shop:pass-word@127.0.0.1:1",
            "http://shop:pass-word@127.0.0.1:99999",
            "http://shop:pass-word@a..b",
            f"http://shop:pass-word@{'a' * 64}.example",
        ),
    ],
)
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
