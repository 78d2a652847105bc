import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from django.conf import settings as project_settings
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.regex_helper import normalize
from pytest_django import Settings
from rest_framework.test import APIClient
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from commerce.accounts.tokens import OneUseRefreshToken
from orders.models import Order
from orders.services import Line, place_order
from testkit.processes import WebServer

pytestmark = pytest.mark.django_db

OPEN = {
    "/": {"GET", "HEAD"},
    "/api/auth/register": {"POST"},
    "/api/auth/token": {"POST"},
    "/api/auth/token/refresh": {"POST"},
    "/api/schema": {"GET", "HEAD"},
    "/api/docs": {"GET", "HEAD"},
    "/api/asyncapi": {"GET", "HEAD"},
    "/health/live": {"GET", "HEAD"},
    "/health/ready": {"GET", "HEAD"},
    "/admin/login/": {"GET", "HEAD", "POST", "PUT", "OPTIONS"},
}
ODD_HOSTS = ("evil.example", "10.1.2.3:8080", "a b", "x" * 300, "[", "testserver:99999x")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def every_path(resolver: Any = None, prefix: str = "/") -> Iterator[str]:
    """Yield one path for each URL pattern, with 1 for every parameter."""
    for pattern in (resolver or get_resolver()).url_patterns:
        possible, parameters = normalize(pattern.pattern.regex.pattern)[0]
        path = prefix + possible % dict.fromkeys(parameters, "1")
        if isinstance(pattern, URLResolver):
            yield from every_path(pattern, path)
        elif isinstance(pattern, URLPattern):
            yield path


def test_only_the_contracts_open_paths_answer_without_a_token() -> None:
    paths = list(every_path())
    assert {"/api/orders/1/pay", "/api/notifications/1/read", "/admin/orders/order/1/change/"} <= set(paths)
    answered = set()
    for path in paths:
        for method in METHODS:
            response = Client().generic(method, path)
            to_login = response.status_code in (301, 302) and path.startswith("/admin")
            if response.status_code not in (401, 404, 405) and not to_login and method not in OPEN.get(path, ()):
                answered.add((method, path, response.status_code))
    assert not answered


def test_an_open_path_needs_no_token(anonymous: APIClient) -> None:
    assert anonymous.post("/api/auth/register", {}, format="json").status_code == 400
    assert anonymous.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/orders", {"GET", "HEAD", "POST"}),
        ("/api/auth/token", {"POST"}),
        ("/health/live", {"GET", "HEAD"}),
        ("/metrics", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "BREW"])
def test_a_refused_method_names_the_allowed_ones(api: APIClient, path: str, allowed: set[str], method: str) -> None:
    response = api.generic(method, path)
    assert response.status_code == 405
    assert response["Content-Type"] == "application/problem+json"
    assert set(response["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("token", [False, True])
def test_every_get_path_also_has_head(admin_client: Client, api: APIClient, token: bool) -> None:
    answered = set()
    for path in every_path():
        client = api if token and path.startswith("/api/") else admin_client if token else Client()
        by_get, by_head = client.get(path), client.head(path)
        if by_get.status_code not in (200, 401):
            continue
        assert (path, by_head.status_code) == (path, by_get.status_code)
        assert by_head.content == b""
        assert by_head.headers.get("Content-Type") == by_get.headers.get("Content-Type"), path
        answered.add(path)
    assert {"/health/live", "/health/ready", "/api/orders", "/api/schema"} <= answered


def test_a_preflight_without_a_token_is_not_unauthorized(anonymous: APIClient) -> None:
    for path in ("/api/orders", "/api/orders/1/pay", "/api/notifications", "/api/auth/token"):
        answer = anonymous.options(
            path, headers={"origin": "https://a.example", "access-control-request-method": "GET"}
        )
        assert answer.status_code == 405
        assert "OPTIONS" not in answer["Allow"]
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


# --- Errors of Django itself --------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("path", ["/api/orders", "/api/auth/token", "/api/nothing", "/metrics"])
def test_an_unknown_host_is_a_problem(client: Client, settings: Settings, path: str, debug: bool) -> None:
    settings.DEBUG = debug
    for host in ODD_HOSTS:
        response = client.get(path, headers={"host": host})
        assert response.status_code == 400, host
        assert response["Content-Type"] == "application/problem+json"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert host not in response.content.decode()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("host", ODD_HOSTS)
def test_health_answers_for_every_host(client: Client, settings: Settings, host: str, method: str, debug: bool) -> None:
    settings.DEBUG = debug
    for path in ("/health/live", "/health/ready"):
        assert getattr(client, method)(path, headers={"host": host}).status_code == 200
    assert client.get("/admin/login/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("path", ["/api/%00", "/api/orders/1%00", "/api/orders/%ff", "/api/orders/1/pay%0a", "/api//"])
def test_an_odd_path_is_not_found(api: APIClient, settings: Settings, path: str, debug: bool) -> None:
    settings.DEBUG = debug
    for method in ("get", "post"):
        response = getattr(api, method)(path)
        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/static/%00", "/static/../settings.py", "/%00", "/admin/%00"])
def test_an_odd_path_elsewhere_is_not_a_server_error(client: Client, path: str) -> None:
    assert client.get(path).status_code in (302, 404)


@pytest.mark.parametrize(
    "query", ["limit=%00", "cursor=%00", "cursor=%ff", "cursor=" + "x" * 3000, "&".join("a" * 1001)]
)
def test_an_odd_query_is_refused(api: APIClient, query: str) -> None:
    assert api.get(f"/api/orders?{query}").status_code == 400


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_a_too_large_body_is_refused_everywhere(api: APIClient, content_type: str) -> None:
    largest = project_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    for path in every_path():
        for client in (api, Client()):
            refused = client.generic("POST", path, b" " * (largest + 1), content_type=content_type)
            assert (path, refused.status_code) == (path, 413)
            assert refused["Content-Type"] == "application/problem+json"
        assert api.generic("POST", path, b" " * largest, content_type=content_type).status_code != 413


def test_a_too_large_body_changes_no_order(api: APIClient, user: User) -> None:
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    body = b"x" * project_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    for change in ("pay", "cancel"):
        path = f"/api/orders/{order.pk}/{change}"
        assert api.generic("POST", path, body + b"x").status_code == 413
        assert api.get(f"/api/orders/{order.pk}").json()["status"] == "PENDING"
    assert api.generic("POST", f"/api/orders/{order.pk}/pay", body).json()["status"] == "PAID"


@pytest.mark.parametrize("length", ["", "x", "-1", "9" * 5_000])
def test_an_odd_content_length_means_an_empty_body(api: APIClient, length: str) -> None:
    assert api.post("/api/orders", content_type="application/json", CONTENT_LENGTH=length).status_code == 400


@pytest.mark.parametrize(
    ("header", "named"),
    [
        *((encoding, encoding) for encoding in ("gzip", "GZIP", "br", "x" * 1_000)),
        ("deflate, gzip", "deflate"),
        ("identity,zstd", "zstd"),
    ],
)
@pytest.mark.parametrize("path", ["/api/orders", "/api/auth/register", "/api/auth/token", "/api/auth/token/refresh"])
def test_a_compressed_body_is_refused_by_its_encoding(api: APIClient, path: str, header: str, named: str) -> None:
    body = gzip.compress(b'{"items":[]}')
    answer = api.post(path, body, content_type="application/json", headers={"content-encoding": header})
    assert answer.status_code == 415
    assert answer["Accept-Encoding"] == "identity"
    assert f"Content-Encoding '{named}' is not taken" in answer.json()["detail"]


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", "identity, identity"])
def test_the_identity_encoding_is_accepted(api: APIClient, encoding: str) -> None:
    body = {"items": [{"productId": 1, "quantity": 1, "price": 1}]}
    assert api.post("/api/orders", body, format="json", headers={"content-encoding": encoding}).status_code == 201


@pytest.mark.parametrize(
    ("body", "mark"),
    [
        (b"\xef\xbb\xbf{}", "UTF-8 (ef bb bf)"),
        ("{}".encode("utf-16"), "UTF-16 (ff fe)"),
        ("{}".encode("utf-32"), "UTF-32 (ff fe 00 00)"),
        (b"\0\0\xfe\xff\0\0\0{\0\0\0}", "UTF-32 (00 00 fe ff)"),
        (b"\xfe\xff\0{\0}", "UTF-16 (fe ff)"),
    ],
)
@pytest.mark.parametrize("path", ["/api/orders", "/api/auth/register", "/api/auth/token", "/api/auth/token/refresh"])
def test_a_byte_order_mark_is_named(api: APIClient, path: str, body: bytes, mark: str) -> None:
    answer = api.post(path, body, content_type="application/json")
    assert answer.status_code == 400
    assert f"begins with the byte order mark of {mark}: send JSON as UTF-8 without it." in answer.json()["detail"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "x"]
)
@pytest.mark.parametrize("path", ["/api/orders", "/api/auth/register", "/api/auth/token", "/api/auth/token/refresh"])
def test_another_content_type_is_refused_everywhere(api: APIClient, path: str, content_type: str) -> None:
    response = api.generic("POST", path, b"a=b", content_type=content_type)
    assert response.status_code == 415
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"items":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"note":' + b"9" * 5_000 + b',"items":[]}',
        b"[Infinity]",
        b"-Infinity",
        b'{"items":[{"productId":NaN}]}',
        b'{"items":[],}',
        b"\xef\xbb\xbf{}",
        b'{"items":"\xed\xa0\x80"}',
        b'{"items":[{"productId":"\\u0000","quantity":1,"price":1}]}',
        b'{"items":[{"productId":1,"quantity":2147483648,"price":1}]}',
        b'{"items":[{"productId":9223372036854775808,"quantity":1,"price":1}]}',
        b'{"items":[{"productId":1,"quantity":1,"price":1e400}]}',
    ],
)
@pytest.mark.parametrize("path", ["/api/orders", "/api/auth/register", "/api/auth/token", "/api/auth/token/refresh"])
def test_no_body_is_a_server_error(api: APIClient, path: str, body: bytes) -> None:
    response = api.post(path, body, content_type="application/json")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert not Order.objects.exists()


# --- Browsers -----------------------------------------------------------------------------------


def test_answers_have_security_headers(client: Client, admin_client: Client) -> None:
    data, page = client.get("/health/live"), admin_client.get("/admin/")
    for response in (data, page, client.get("/api/orders"), client.get("/nothing")):
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["X-Frame-Options"] == "DENY"
        assert response["Referrer-Policy"] == "same-origin"
        assert response["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in response["Content-Security-Policy"]
        assert "no-store" in response["Cache-Control"]
    assert data["Content-Security-Policy"].startswith("default-src 'none'")
    assert page["Content-Security-Policy"].startswith("default-src 'self'")


def test_only_admin_pages_may_use_eval(client: Client, admin_client: Client) -> None:
    policies = {
        path: admin_client.get(path)["Content-Security-Policy"] for path in ("/admin/", "/api/docs", "/api/orders")
    }
    assert [path for path, policy in policies.items() if "'unsafe-eval'" in policy] == ["/admin/"]
    assert policies["/api/docs"].startswith("default-src 'self'; script-src 'self' 'unsafe-inline'; ")


def test_hsts_is_sent_over_https(client: Client) -> None:
    assert client.get("/health/live", secure=True)["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in client.get("/health/live")


def test_only_proxies_can_claim_https(settings: Settings) -> None:
    request = RequestFactory().get("/", headers={"x-forwarded-proto": "https"})
    assert not request.is_secure()
    assert _in_production("print(settings.SECURE_PROXY_SSL_HEADER)", TRUSTED_PROXIES="1").stdout == (
        "('HTTP_X_FORWARDED_PROTO', 'https')\n"
    )


# --- Production ---------------------------------------------------------------------------------


def test_djangos_own_check_of_a_deployment_finds_nothing() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "django", "check", "--deploy", "--fail-level", "WARNING"],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "commerce.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("model", ["axes/accessattempt", "auth/user"])
def test_admin_shows_the_pages_for_locks_and_accounts(admin_client: Client, model: str) -> None:
    assert admin_client.get(f"/admin/{model}/").status_code == 200


def test_no_page_of_admin_shows_a_refresh_token(admin_client: Client, user: User) -> None:
    used, live = OneUseRefreshToken.for_user(user), OneUseRefreshToken.for_user(user)
    used.blacklist()
    assert OutstandingToken.objects.get(jti=live["jti"]).token == str(live)
    ids = OutstandingToken.objects.values_list("pk", flat=True)
    pages = [f"/admin/token_blacklist/{model}/" for model in ("outstandingtoken", "blacklistedtoken")]
    pages += [f"{page}{one}/change/" for page in pages for one in ids]
    assert {admin_client.get(page).status_code for page in pages} == {404}
    for page in ("/admin/", f"/admin/auth/user/{user.pk}/change/", f"/admin/auth/user/{user.pk}/delete/"):
        text = admin_client.get(page).content.decode()
        assert str(live) not in text
        assert str(used) not in text


def test_admin_is_at_the_configured_path(admin_user: User) -> None:
    asked = _in_production(
        "import django; django.setup(); from django.urls import reverse; print(reverse('admin:index'))",
        ADMIN_PATH="/backstage",
    )
    assert asked.stdout == "/backstage/\n", asked.stderr


def _in_production(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from django.conf import settings; {code}"],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "commerce.settings"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# --- The web server -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # Without throttles, because this server's database has no tables for them.
    server = WebServer(log=tmp_path_factory.mktemp("logs") / "web.log", env={"THROTTLE_REFRESH": ""})
    yield server.url
    server.stop()


def test_a_chunked_body_is_read_and_limited(site: str) -> None:
    asked = [
        httpx.post(
            f"{site}/api/auth/token/refresh",
            content=iter(chunks),
            headers={"content-type": "application/json"},
            trust_env=False,
        )
        for chunks in ([b'{"refresh":', b"7}"], [b" " * 65_536] * 5)
    ]
    assert [answer.status_code for answer in asked] == [400, 413]
    assert asked[0].json()["errors"] == [{"pointer": "/refresh", "detail": "Not a valid string."}]


def test_no_client_can_claim_a_secure_connection(site: str) -> None:
    answer = httpx.get(f"{site}/health/live", headers={"x-forwarded-proto": "https"}, trust_env=False)
    assert "Strict-Transport-Security" not in answer.headers
