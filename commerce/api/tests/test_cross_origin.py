"""Pages of other origins may use the API only if CORS_ALLOWED_ORIGINS names their origin."""

import os
from collections.abc import Iterator

import httpx
import pytest

from testkit.processes import WebServer, refusal_to_start

SHOP = "https://shop.example"
ALLOWED = (SHOP, "http://localhost:5173", "http://[::1]:3000")
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,idempotency-key"}


@pytest.fixture(scope="module")
def site(site_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    server = WebServer(
        log=tmp_path_factory.mktemp("logs") / "web.log", env={"CORS_ALLOWED_ORIGINS": ", ".join(ALLOWED)}
    )
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client
    server.stop()


def names(header: str) -> set[str]:
    return {name.lower() for name in header.split(", ")}


@pytest.mark.parametrize("origin", ALLOWED)
@pytest.mark.parametrize("path", ["/api/orders", "/api/orders/1/pay", "/api/auth/token", "/api/nothing"])
def test_a_preflight_of_an_allowed_origin_is_answered(site: httpx.Client, path: str, origin: str) -> None:
    answer = site.options(path, headers={"origin": origin} | PREFLIGHT)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert {"get", "post"} <= names(answer.headers["access-control-allow-methods"])
    allowed = names(answer.headers["access-control-allow-headers"])
    assert allowed == {"authorization", "content-type", "idempotency-key"}
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/api/orders", b"", 401),
        ("GET", "/api/schema", b"", 200),
        ("POST", "/api/auth/token/refresh", b"{}", 400),
        ("POST", "/api/orders/1/pay", b" " * 300_000, 413),
        ("GET", "/api/nothing", b"", 404),
    ],
)
def test_an_allowed_origin_reads_every_answer(
    site: httpx.Client, method: str, path: str, content: bytes, status: int
) -> None:
    headers = {"origin": SHOP, "content-type": "application/json"}
    answer = site.request(method, path, content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == SHOP
    exposed = names(answer.headers["access-control-expose-headers"])
    assert exposed == {"link", "location", "idempotent-replayed", "retry-after"}
    assert "origin" in names(answer.headers["vary"])


@pytest.mark.parametrize(
    "origin",
    [
        *("http://shop.example", "https://shop.example:8443", "https://shop.example.evil.example", "null"),
        *("https://evil.example", "https://sub.shop.example", "https://[", "http://localhost"),
    ],
)
def test_another_origin_reads_nothing(site: httpx.Client, origin: str) -> None:
    for answer in (
        site.get("/api/schema", headers={"origin": origin}),
        site.options("/api/orders", headers={"origin": origin} | PREFLIGHT),
    ):
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/health/live", "/metrics", "/admin/login/", "/nothing"])
def test_no_origin_is_allowed_outside_the_api(site: httpx.Client, path: str) -> None:
    for answer in (
        site.get(path, headers={"origin": SHOP}),
        site.options(path, headers={"origin": SHOP} | PREFLIGHT),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "origin",
    [
        *("shop.example", "https://shop.example/", "https://shop.example/path", "*", "null", "https://", "ftp://a.b"),
        *(
            "https://Shop.example",
            "https://shop.example:port",
            "https://*.shop.example",
            "https://a.b?c",
            "https://a b",
        ),
    ],
)
def test_a_malformed_origin_is_refused_at_start(origin: str) -> None:
    with_it = {"CORS_ALLOWED_ORIGINS": f"{SHOP},{origin}"}
    assert f"CORS_ALLOWED_ORIGINS names {origin!r}: give origins in lower case and without a path" in refusal_to_start(
        dict(os.environ) | with_it
    )
