"""What the web server answers to request lines and headers that Django must not read."""

import http.client
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from testkit.processes import WebServer

AT_ONCE_S = 0.5
FORM = "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def web(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    web = WebServer(log=tmp_path_factory.mktemp("logs") / "web.log")
    yield web
    web.kill()
    print(web.log.read_text())


def ask(web: WebServer, method: str, path: str, **headers: str) -> tuple[int, str, float]:
    """Send a request. Return the answer's status and media type, and the seconds that the answer took."""
    connection = http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=20)
    started_at = time.monotonic()
    body = json.dumps({"username": "a", "password": "b"}) if method == "POST" else None
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.getheader("X-Request-ID")
    assert json.loads(content)["status"] == answer.status or answer.status == 200
    return answer.status, answer.getheader("Content-Type") or "", time.monotonic() - started_at


@pytest.mark.parametrize(
    ("status", "content_type"),
    [
        *(
            (415, f"application/json; charset={name}")
            for name in ("unicode_escape", "utf-7", '"utf-7"', "hex", "latin-1")
        ),
        *((415, f"application/json; CHARSET = {name}") for name in ("utf-16", "'idna'", "utf-8; charset=punycode")),
        (415, FORM + "; charset=raw_unicode_escape"),
        *((400, f"a/b;x*{rest}") for rest in ("=foo''bar", "0=a;x*=b", "9" * 500 + "=1", "=undefined''aa")),
        *((431, text) for text in ('a/b;"' + ";" * 60_000, "a/b" + ";" * 200_000, "a/b; charset=" + "f" * 2_000)),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("path", ["/api/auth/token?a=%5Cud800", "/health/live", "/admin/login/?a=%5Cud800", "/nowhere"])
def test_an_odd_content_type_is_a_problem_at_once(web: WebServer, path: str, status: int, content_type: str) -> None:
    method = "GET" if path == "/health/live" else "POST"
    answered, kind, seconds = ask(web, method, path, Content_Type=content_type)
    assert (answered, kind) == (status, "application/problem+json")
    assert seconds < AT_ONCE_S


@pytest.mark.parametrize("name", ["Accept", "X-Anything", "Cookie", "Accept-Language", "Authorization"])
def test_a_long_header_is_a_431_at_once(web: WebServer, name: str) -> None:
    status, kind, seconds = ask(web, "GET", "/health/live", **{name.replace("-", "_"): 'a/b;"' + ";" * 100_000})
    assert (status, kind) == (431, "application/problem+json")
    assert seconds < AT_ONCE_S


@pytest.mark.parametrize("target", ["/" + "%ff" * 21_000, "/" + "a" * 9_000, "/health/live?" + "a=1&" * 3_000])
def test_a_long_target_is_a_414_at_once(web: WebServer, target: str) -> None:
    status, kind, seconds = ask(web, "GET", target)
    assert (status, kind) == (414, "application/problem+json")
    assert seconds < AT_ONCE_S


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"', ";charset=utf8"])
def test_utf_8_is_taken(web: WebServer, charset: str) -> None:
    status, _, _ = ask(web, "POST", "/api/auth/token", Content_Type=f"application/json{charset}")
    assert status == 401
