"""nginx in front of the web server, as in compose. It keeps slow and large requests away from the web server."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from testkit.processes import CHECKOUT, WebServer, free_port
from testkit.waiting import wait_until

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIGURATION = CHECKOUT / "deploy" / "nginx" / "nginx.conf"

pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("curl") is None, reason="needs nginx and curl: install Debian's packages"
)


class Site(NamedTuple):
    url: str
    web: WebServer
    tls_url: str
    """The proxy's URL with TLS and HTTP/2, which an operator may configure."""

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", urlsplit(self.url).port or 80


@pytest.fixture(scope="module")
def site(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    # The web server has fewer threads than there are slow clients.
    web = WebServer(log=folder / "web.log", env={"TRUSTED_PROXIES": "1", "WEB_THREADS": "2", "THROTTLE_TOKEN": "5/min"})
    port = free_port()
    tls_port = free_port()
    process = start_nginx(folder, web=urlsplit(web.url).netloc, port=port, tls_port=tls_port)
    site = Site(f"http://127.0.0.1:{port}", web, f"https://127.0.0.1:{tls_port}")
    try:
        wait_until(lambda: answers(site), timeout=20)
        yield site
    finally:
        process.terminate()
        process.wait(10)
        web.kill()


def start_nginx(folder: Path, *, web: str, port: int, tls_port: int) -> "subprocess.Popen[bytes]":
    text = CONFIGURATION.read_text()
    for as_deployed, here in {
        "/etc/nginx/web-server.conf": f"{folder}/web-server.conf",
        "listen 8080;": f"listen 127.0.0.1:{port}; {with_tls(folder, tls_port)}",
        "/tmp/nginx": f"{folder}/nginx",
    }.items():
        assert as_deployed in text
        text = text.replace(as_deployed, here)
    (folder / "nginx.conf").write_text(text)
    (folder / "web-server.conf").write_text(f"server {web};\n")
    # Started by root, the workers would be another user, who cannot enter pytest's folders.
    user = "user root;" if os.geteuid() == 0 else ""
    return subprocess.Popen([str(NGINX), "-c", folder / "nginx.conf", "-g", f"daemon off; {user}"])


def with_tls(folder: Path, port: int) -> str:
    """Write a certificate to `folder`, and return the nginx directives that serve TLS and HTTP/2 on `port`.

    The directives have the syntax of the nginx version in Debian.
    """
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "tls.pem")
    pem = folder / "tls.pem"
    return f"listen 127.0.0.1:{port} ssl http2; ssl_certificate {pem}; ssl_certificate_key {pem};"


def answer_to(site: Site, sent: bytes) -> bytes:
    """Send `sent` to the proxy, and return everything that it answers until it closes the connection."""
    with socket.create_connection(site.address, timeout=30) as client, client.makefile("rb") as answer:
        client.sendall(sent)
        return answer.read()


def over_http2(site: Site, path: str, *options: str) -> tuple[str, str, bytes]:
    """Return the HTTP version, the status and the body of an answer over TLS. `options` are curl's."""
    curl = ["curl", "--silent", "--insecure", "--http2", "--max-time", "20"]
    shown = ["--write-out", "%{stderr}%{http_version} %{http_code}"]
    asked = subprocess.run([*curl, *shown, *options, f"{site.tls_url}{path}"], capture_output=True, check=True)
    version, status = asked.stderr.decode().split()
    return version, status, asked.stdout


def answers(site: Site) -> bool:
    try:
        return httpx.get(f"{site.url}/health/live", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /api/auth/token HTTP/1.1\r\nHost: a\r\nX-Slow: a",
        b"POST /api/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{",
        b"POST /api/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_slow_clients_take_no_thread_of_the_web_server(site: Site, sent: bytes) -> None:
    clients = [socket.create_connection(site.address, timeout=10) for _ in range(200)]
    for client in clients:
        client.sendall(sent)
    started_at = time.monotonic()
    assert all(answers(site) for _ in range(10))
    assert time.monotonic() - started_at < 1
    for client in clients:
        client.close()


@pytest.mark.parametrize("length", [256 * 1024 + 1, 2 << 20, 600 << 20])
def test_a_body_above_the_limit_is_413(site: Site, length: int) -> None:
    with socket.create_connection(site.address, timeout=10) as client:
        client.sendall(f"POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode())
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 413


def test_a_body_of_the_limit_reaches_the_application(site: Site) -> None:
    response = httpx.post(f"{site.url}/api/orders", content=b" " * (256 * 1024), trust_env=False)
    assert response.status_code == 401


def test_a_body_from_the_proxy_is_read_before_the_answer(site: Site) -> None:
    """Otherwise the web server would close the connection while nginx sends the body, and nginx would get no answer."""
    response = httpx.post(f"{site.web.url}/api/orders", content=b" " * (256 * 1024), trust_env=False)
    assert response.status_code == 401
    assert "connection" not in response.headers


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /.proxy/problem HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ],
)
def test_a_request_that_the_proxy_refuses_is_a_problem(site: Site, sent: bytes, status: int) -> None:
    head, _, body = answer_to(site, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["title"] != "Internal Server Error"


def test_slow_requests_end_in_time(site: Site) -> None:
    """One client stops within its headers, the other within its body. nginx closes both connections without an answer.

    Both waits run side by side, so that the test takes the time of one.
    """
    started_at = time.monotonic()
    slow = [
        socket.create_connection(site.address, timeout=25),
        socket.create_connection(site.address, timeout=25),
    ]
    slow[0].sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: a")
    slow[1].sendall(b"POST /api/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
    assert [client.recv(4096) for client in slow] == [b"", b""]
    assert 10 < time.monotonic() - started_at < 20
    for client in slow:
        client.close()


def test_a_connection_carries_many_requests(site: Site) -> None:
    with httpx.Client(base_url=site.url, trust_env=False) as client:
        assert {client.get("/health/live").status_code for _ in range(20)} == {200}
        (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
    assert "Request Count: 20" in repr(connection)


def test_http2_has_the_same_limits(site: Site) -> None:
    assert over_http2(site, "/health/live")[:2] == ("2", "200")
    # A third of the limit or more: the length of one argument is bounded.
    part = "x" * 100_000
    parts = [argument for _ in range(3) for argument in ("--data", part)]
    version, status, body = over_http2(site, "/api/orders", *parts)
    assert (version, status, json.loads(body)["status"]) == ("2", "413", 413)
    version, status, _ = over_http2(site, "/api/orders", "--data", part)
    assert (version, status) == ("2", "401")


def test_the_application_learns_the_scheme(site: Site) -> None:
    """Over HTTPS, and only then, an answer tells the browser to keep to HTTPS."""
    plain = httpx.get(f"{site.url}/health/live", trust_env=False)
    assert "strict-transport-security" not in plain.headers
    behind_tls = httpx.get(f"{site.url}/health/live", headers={"X-Forwarded-Proto": "https"}, trust_env=False)
    assert "strict-transport-security" in behind_tls.headers
    _, _, own_tls = over_http2(site, "/health/live", "--include")
    assert b"strict-transport-security" in own_tls.lower()


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X_Forwarded_For"])
def test_a_clients_own_claim_of_its_address_is_not_believed(site: Site, name: str) -> None:
    statuses = [
        httpx.post(
            f"{site.url}/api/auth/token",
            json={"username": "nobody", "password": "wrong"},
            headers={name: f"198.51.100.{number}"},
            trust_env=False,
        ).status_code
        for number in range(6)
    ]
    assert statuses[-1] == 429


def test_names_with_underscores_are_dropped(site: Site) -> None:
    response = httpx.get(f"{site.url}/health/live", headers={"X_Request_ID": "chosen-by-client"}, trust_env=False)
    assert response.headers["X-Request-ID"] != "chosen-by-client"
    response = httpx.get(f"{site.url}/health/live", headers={"X-Request-ID": "chosen-by-client"}, trust_env=False)
    assert response.headers["X-Request-ID"] == "chosen-by-client"


def test_without_the_web_server_the_proxy_answers_503(site: Site) -> None:
    site.web.kill()
    response = httpx.get(f"{site.url}/api/orders", trust_env=False)
    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 503
