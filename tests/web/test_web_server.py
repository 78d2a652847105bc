"""What the web server does with slow, large and unfinished requests, and when it or one of its workers ends."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from testkit.customer import Customer
from testkit.processes import CHECKOUT, WebServer
from testkit.waiting import wait_until

LIMIT_BYTES = 256 * 1024
"""Largest number of bytes of a request's body that the site accepts."""
AT_ONCE_S = 0.5
"""Longest time of an answer that no other client has delayed, in seconds."""


@pytest.fixture(scope="module")
def web(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    web = WebServer(log=tmp_path_factory.mktemp("logs") / "web.log")
    yield web
    web.kill()
    print(web.log.read_text())


@pytest.fixture
def start_web(site_database: None, tmp_path: Path) -> Iterator[Callable[..., WebServer]]:
    started: list[WebServer] = []

    def start(**env: str) -> WebServer:
        started.append(WebServer(log=tmp_path / "web.log", env=env))
        return started[-1]

    yield start
    for one in started:
        one.kill()


class Clients:
    """Connections to a web server that stay open. Each has sent the same bytes."""

    def __init__(self, web: WebServer, count: int, sent: bytes) -> None:
        address = urlsplit(web.url)
        self.sockets = [
            socket.create_connection((address.hostname, address.port or 80), timeout=10) for _ in range(count)
        ]
        self.send(sent)

    def send(self, sent: bytes) -> None:
        for one in self.sockets:
            one.sendall(sent)

    def close(self) -> None:
        for one in self.sockets:
            one.close()


def slowest_answer(web: WebServer, requests: int = 20) -> float:
    """Return the seconds of the slowest of `requests` requests.

    Each request opens a new connection, so that both workers get some.
    """
    durations = []
    for _ in range(requests):
        started_at = time.monotonic()
        assert httpx.get(f"{web.url}/health/live", trust_env=False).status_code == 200
        durations.append(time.monotonic() - started_at)
    return max(durations)


def answers(web: WebServer) -> bool:
    """Return whether the server answers all of 20 requests. A request fails if its worker is killed meanwhile."""
    try:
        return slowest_answer(web) > 0
    except httpx.TransportError:
        return False


def test_200_clients_with_slow_headers_delay_no_other(web: WebServer) -> None:
    clients = Clients(web, 200, b"POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    for _ in range(3):
        clients.send(b"a")
        assert slowest_answer(web) < AT_ONCE_S
    clients.send(b"\r\nContent-Length: 0\r\n\r\n")
    assert all(one.recv(12) == b"HTTP/1.1 401" for one in clients.sockets)
    clients.close()


@pytest.mark.parametrize(
    "sent", [b"", b"G", b"GET /health/live HTTP/1.1\r\nHo", b"GET /health/live HTTP/1.1\r\nHost: a\r\n"]
)
def test_1500_clients_that_never_finish_headers_delay_no_other(web: WebServer, sent: bytes) -> None:
    clients = Clients(web, 1500, sent)
    assert slowest_answer(web) < AT_ONCE_S
    clients.close()


def test_30_clients_that_never_finish_bodies_delay_no_other(web: WebServer) -> None:
    customer = Customer(web.url)
    half = (
        "POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f'Authorization: Bearer {customer.token}\r\nContent-Length: 1000\r\n\r\n{{"items":'
    )
    clients = Clients(web, 30, half.encode())
    assert slowest_answer(web) < AT_ONCE_S
    clients.close()


def test_a_large_body_is_refused_before_it_is_read(web: WebServer) -> None:
    sent, answer = upload(web, length=600 << 20, headers="")
    assert sent < 16 << 20
    assert answer.startswith(b"HTTP/1.1 413"), answer


@pytest.mark.parametrize("path", ["/api/orders", "/api/orders/1/pay", "/api/auth/token"])
@pytest.mark.parametrize("length", [300_000, 2 << 20])
def test_a_body_above_the_limit_closes_its_connection(web: WebServer, path: str, length: int) -> None:
    customer = Customer(web.url)
    connection = http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=10)
    headers = {"Authorization": f"Bearer {customer.token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, b" " * length, headers)
        answer = connection.getresponse()
        answer.read()
    except ConnectionError:
        # A client that is still sending when the connection is closed may lose the answer.
        return
    assert (answer.status, answer.getheader("Connection")) == (413, "close")


@pytest.mark.parametrize(("length", "status"), [(200_000, 401), (300_000, 413), (2 << 20, 413)])
def test_an_answer_before_the_body_closes_the_connection(web: WebServer, length: int, status: int) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(web.url).port or 80), timeout=10) as client:
        client.sendall(f"POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{{".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert b"\r\nconnection: close\r\n" in answer.lower()


CHUNKED = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "{headers}Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize("begun", [b"", b"5\r\n{", b"5\r\nabcde\r\n"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/api/orders", 401), ("/api/orders/1/pay", 401), ("/api/notifications/1/read", 401)),
        *(("/api/nowhere", 404), ("/nowhere", 404), ("/health/live", 405)),
    ],
)
def test_chunks_of_a_stranger_are_not_waited_for(web: WebServer, path: str, status: int, begun: bytes) -> None:
    sent = CHUNKED.format(path=path, headers="").encode() + begun
    # There are more clients than threads: each answer closes its connection.
    clients = Clients(web, 100, sent)
    for one in clients.sockets:
        answer = b"".join(iter(partial(one.recv, 4096), b""))
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        assert b"\r\nconnection: close\r\n" in answer.lower()
    assert slowest_answer(web) < AT_ONCE_S
    clients.close()


@pytest.mark.parametrize("token", ["", "Authorization: Bearer nonsense\r\n", "Authorization: Basic bWluYTptaW5h\r\n"])
def test_chunks_with_no_good_token_are_not_waited_for(web: WebServer, token: str) -> None:
    clients = Clients(web, 100, CHUNKED.format(path="/api/orders", headers=token).encode())
    assert all(one.recv(12) == b"HTTP/1.1 401" for one in clients.sockets)
    clients.close()


def chunks(*lengths: int) -> bytes:
    return b"".join(f"{length:x}\r\n".encode() + b" " * length + b"\r\n" for length in lengths)


@pytest.mark.parametrize("path", ["/api/orders", "/api/auth/token", "/api/auth/register", "/api/auth/token/refresh"])
@pytest.mark.parametrize("lengths", [[LIMIT_BYTES + 1], [65_536] * 5, [1] * 10 + [LIMIT_BYTES]])
def test_chunks_above_the_limit_are_413(web: WebServer, path: str, lengths: list[int]) -> None:
    token = f"Authorization: Bearer {Customer(web.url).token}\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(web.url).port or 80), timeout=10) as client:
        # The body has no end.
        client.sendall(CHUNKED.format(path=path, headers=token).encode() + chunks(*lengths))
        try:
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        except ConnectionError:
            # A client whose last bytes were not read may lose the answer with the connection.
            return
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert b"application/problem+json" in answer


def test_chunks_of_the_limit_are_read(web: WebServer) -> None:
    customer = Customer(web.url)
    connection = http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=10)
    headers = {"Authorization": f"Bearer {customer.token}", "Content-Type": "application/json"}
    order = b'{"items":[{"productId":1,"quantity":2,"price":100.00}]}'
    for body in ([order[:9], order[9:]], [order, b" " * (LIMIT_BYTES - len(order))]):
        # Both requests use one connection, because it stays open after a body that was read.
        connection.request("POST", "/api/orders", iter(body), headers, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (201, None)
        assert json.loads(answer.read())["totalAmount"] == 200.0


@pytest.mark.parametrize(
    "path", ["/api/orders/{order}/pay", "/api/orders/{order}/cancel", "/api/orders/{order}/events"]
)
def test_chunks_that_are_ignored_are_not_waited_for(web: WebServer, path: str) -> None:
    customer = Customer(web.url)
    asked = CHUNKED.format(
        path=path.format(order=customer.place_order()["id"]), headers=f"Authorization: Bearer {customer.token}\r\n"
    )
    asked = asked.replace("POST", "GET") if path.endswith("events") else asked
    with socket.create_connection(("127.0.0.1", urlsplit(web.url).port or 80), timeout=10) as client:
        client.sendall(asked.encode() + b"5\r\n{")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_no_environment_variable_is_among_a_requests_headers(start_web: Callable[..., WebServer]) -> None:
    names = ["OTEL_EXPORTER_OTLP_HEADERS", "CLOUD_TOKEN", "HTTP_X_FORWARDED_FOR", "REDIRECT_URL"]
    variables = {name: f"authorization=Basic-{number}" for number, name in enumerate(names)}
    web = start_web(DJANGO_DEBUG="true", **variables)
    # Django's debug page shows all entries of the WSGI environment.
    page = httpx.get(web.url, headers={"host": "evil.example", "accept": "text/html"}, trust_env=False)
    assert page.status_code == 400
    assert "<td>wsgi.url_scheme</td>" in page.text
    assert [name for name in names if f"<td>{name}</td>" in page.text] == []
    assert "authorization=Basic" not in page.text


def upload(web: WebServer, *, length: int, headers: str) -> tuple[int, bytes]:
    """Send `length` bytes, or fewer if the server refuses more. Return the number sent, and the answer's beginning.

    A client that is still sending may lose the answer with the connection. Then this returns `HTTP/1.1 413` instead.
    """
    address = urlsplit(web.url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as client:
        client.sendall(
            f"POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{headers}\r\n".encode()
        )
        sent = 0
        try:
            while sent < length:
                sent += client.send(b"a" * 65536)
        except (ConnectionError, TimeoutError):
            pass
        try:
            return sent, client.recv(4096)
        except ConnectionError:
            return sent, b"HTTP/1.1 413"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_request_without_a_host_is_refused(web: WebServer, version: str) -> None:
    address = urlsplit(web.url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as client:
        client.sendall(f"GET /api/orders HTTP/{version}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(f"HTTP/{version} 400".encode())
    assert b"application/problem+json" in answer


def test_a_kept_alive_connection_is_answered_again_and_again(web: WebServer) -> None:
    connection = http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=5)
    for path, status in [("/health/live", 200), ("/nowhere", 404)] * 10:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.read()
        assert answer.status == status


def test_metrics_are_those_of_all_workers(start_web: Callable[..., WebServer]) -> None:
    web = start_web(METRICS_TOKEN="token")

    def published() -> int:
        text = httpx.get(f"{web.url}/metrics", headers={"Authorization": "Bearer token"}, trust_env=False).text
        counted = re.search(r'events_published_total{path="fast",topic="order-events"} (\d+)', text)
        return int(counted[1]) if counted else 0

    before = published()
    customers = [Customer(web.url) for _ in range(4)]
    for customer in customers:
        for _ in range(3):
            customer.place_order()
    wait_until(lambda: published() == before + 12)
    # Each worker answers with the counts of all workers, including those that have ended.
    killed = web.workers()
    for worker in killed:
        worker.kill()
    wait_until(lambda: len([worker for worker in web.workers() if worker not in killed]) == 2)
    wait_until(lambda: answers(web))
    assert {published() for _ in range(8)} == {before + 12}


def test_the_others_answer_while_a_worker_is_killed(start_web: Callable[..., WebServer]) -> None:
    """The other workers answer on their own connections. Connections of the killed worker are lost."""
    web = start_web()
    connections = [http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=5) for _ in range(20)]

    def statuses() -> list[int]:
        found = []
        for connection in connections:
            try:
                connection.request("GET", "/health/live")
                answer = connection.getresponse()
                answer.read()
                found.append(answer.status)
            except OSError:
                found.append(0)
        return found

    assert statuses() == [200] * 20
    web.workers()[0].kill()
    started_at = time.monotonic()
    assert statuses().count(200) >= 1
    assert time.monotonic() - started_at < AT_ONCE_S
    wait_until(lambda: answers(web))


def test_a_killed_worker_is_replaced_at_once(start_web: Callable[..., WebServer]) -> None:
    web = start_web()
    before = web.workers()
    before[0].kill()
    started_at = time.monotonic()
    wait_until(lambda: len([worker for worker in web.workers() if worker not in before]) == 1 and answers(web))
    assert time.monotonic() - started_at < 3
    assert slowest_answer(web) < AT_ONCE_S


def test_sigterm_lets_requests_in_hand_be_answered(start_web: Callable[..., WebServer]) -> None:
    web = start_web()
    customer = Customer(web.url)
    body = b'{"items":[{"productId":1,"quantity":2,"price":100.00}]}'
    head = (
        "POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {customer.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    clients = Clients(web, 6, head.encode() + body[:10])
    wait_until(lambda: sum(established_connections(worker) for worker in web.workers()) >= 6)
    web.process.send_signal(signal.SIGTERM)
    wait_until(lambda: web.says("Shutting down"))
    clients.send(body[10:])
    assert [one.recv(12) for one in clients.sockets] == [b"HTTP/1.1 201"] * 6
    assert web.process.wait(10) == 0


def established_connections(worker: psutil.Process) -> int:
    """Return the number of a worker's established connections."""
    return len([one for one in worker.net_connections() if one.status == psutil.CONN_ESTABLISHED])


def test_sigterm_sends_what_the_fast_path_still_holds(start_web: Callable[..., WebServer]) -> None:
    web = start_web()
    customer = Customer(web.url)
    customer.place_order()
    orders = [customer.place_order()["id"] for _ in range(20)]
    assert web.stop() == 0
    again = start_web()
    customer.http.base_url = again.url
    assert {event["state"] for order in orders for event in customer.events(order)} <= {"PUBLISHED"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_ends_them_in_order(
    start_web: Callable[..., WebServer], number: signal.Signals
) -> None:
    web = start_web()
    slowest_answer(web)
    os.killpg(web.process.pid, number)
    assert web.process.wait(10) == 0, web.log.read_text()


def test_slow_clients_cannot_keep_a_server_from_ending(start_web: Callable[..., WebServer]) -> None:
    web = start_web()
    clients = Clients(web, 50, b"GET /health/live HTTP/1.1\r\nHo")
    assert slowest_answer(web) < AT_ONCE_S
    assert web.stop() == 0
    clients.close()


def test_workers_end_when_their_server_was_killed(start_web: Callable[..., WebServer]) -> None:
    web = start_web()
    workers = web.workers()
    assert len(workers) == 2
    web.process.kill()
    web.process.wait()
    wait_until(lambda: not any(worker.is_running() for worker in workers), timeout=10)


@pytest.mark.parametrize("taken_by", ["this server", "another program"])
def test_a_taken_port_is_one_clear_line(web: WebServer, taken_by: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = urlsplit(web.url).netloc if taken_by == "this server" else f"127.0.0.1:{other.getsockname()[1]}"
        second = subprocess.run(
            [sys.executable, "-m", "commerce.web_server", "--bind", address],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    assert second.returncode == 1
    assert second.stderr == f"Cannot serve: cannot listen on {address} (Address already in use). Give another --bind\n"


def test_missing_settings_are_one_clear_line() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "commerce.web_server", "--bind", "127.0.0.1:1025"],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("Cannot serve: Cannot start: DJANGO_SECRET_KEY is not set; JWT_SIGNING_KEY is not")
    assert refused.stderr.count("\n") == 1


def test_the_server_speaks_in_lines_of_json(start_web: Callable[..., WebServer]) -> None:
    web = start_web(LOG_FORMAT="json", PYTHONWARNINGS="ignore:No directory at")
    web.workers()[0].kill()
    wait_until(lambda: web.says("Respawning"))
    web.stop()
    lines = [json.loads(line) for line in web.log.read_text().splitlines()]
    assert {"Started worker-1", "Respawning worker-1"} <= {line["message"] for line in lines}
    assert [line["message"] for line in lines if line["level"] not in ("INFO",)] == ["Unexpected exit from worker-1"]
