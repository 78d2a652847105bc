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

from testkit.processes import CHECKOUT, WebServer, free_port
from testkit.waiting import wait_until

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIGURATION = CHECKOUT / "deploy" / "nginx" / "nginx.conf"

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx: install Debian's package nginx")


class Site(NamedTuple):
    url: str
    web: WebServer

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", urlsplit(self.url).port or 80


@pytest.fixture(scope="module")
def site(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    # The web server has fewer threads than there are slow clients.
    web = WebServer(log=folder / "web.log", env={"TRUSTED_PROXIES": "1", "WEB_THREADS": "2", "THROTTLE_TOKEN": "5/min"})
    port = free_port()
    process = start_nginx(folder, web=urlsplit(web.url).netloc, port=port)
    site = Site(f"http://127.0.0.1:{port}", web)
    try:
        wait_until(lambda: answers(site), timeout=20)
        yield site
    finally:
        process.terminate()
        process.wait(10)
        web.kill()


def start_nginx(folder: Path, *, web: str, port: int) -> "subprocess.Popen[bytes]":
    text = CONFIGURATION.read_text()
    for as_deployed, here in {
        "resolver 127.0.0.11 valid=5s;": "",
        "server web:8080 resolve;": f"server {web};",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "/tmp/nginx": f"{folder}/nginx",
    }.items():
        assert as_deployed in text
        text = text.replace(as_deployed, here)
    (folder / "nginx.conf").write_text(text)
    # nginx's workers run as another user, who needs access to the folder of bodies.
    for parent in (folder, *folder.parents[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o755)
    return subprocess.Popen([str(NGINX), "-c", folder / "nginx.conf", "-g", "daemon off;"])


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
