"""Outside of the API, health and metrics, errors are pages for people and problem details for programs.

DEBUG is off, unless a test turns it on.
"""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from pytest_django import Settings

pytestmark = pytest.mark.django_db

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PROGRAMS = ("application/json", "*/*", "application/problem+json", "application/json, text/html;q=0.5", "")
PAGE, PROBLEM = "text/html; charset=utf-8", "application/problem+json"
NAVIGATION = 'id="nav-sidebar"'


@pytest.fixture
def staff(client: Client) -> Client:
    """Return a client that is logged in as a staff member without any permission."""
    client.force_login(User.objects.create_user("staff", is_staff=True))
    client.raise_request_exception = False
    return client


def ask(client: Client, path: str, *, language: str = "en", method: str = "get", **headers: str) -> Any:
    return getattr(client, method)(path, headers={"accept": BROWSER, "accept-language": language} | headers)


def failing(*_: object, **__: object) -> None:
    raise OperationalError("the database is away")


@pytest.mark.parametrize("path", ["/admin/pipeline/", "/admin/orders/order/", "/admin/orders/order/1/pay/"])
@pytest.mark.parametrize(("language", "text"), [("en", "lacks the permission"), ("ko", "권한이 없습니다")])
def test_a_forbidden_page_of_admin_has_its_navigation(staff: Client, path: str, language: str, text: str) -> None:
    answer = ask(staff, path, language=language)
    shown = answer.content.decode()
    assert (answer.status_code, answer["Content-Type"]) == (403, PAGE)
    assert f'lang="{language}"' in shown
    assert text in shown
    assert NAVIGATION in shown
    assert 'href="/admin/"' in shown


@pytest.mark.parametrize(("language", "text"), [("en", "Nothing is here"), ("ko", "페이지를 찾을 수 없습니다")])
def test_an_unknown_page_of_admin_has_its_navigation(admin_client: Client, language: str, text: str) -> None:
    for path in ("/admin/nothing/", "/admin/nothing/else", "/admin/orders/order/1/pay/"):
        answer = ask(admin_client, path, language=language)
        shown = answer.content.decode()
        assert (answer.status_code, answer["Content-Type"]) == (404, PAGE)
        assert text in shown
        assert NAVIGATION in shown
        assert "Event pipeline" in shown or "이벤트 파이프라인" in shown


@pytest.mark.parametrize(("language", "text"), [("en", "Nothing is here"), ("ko", "페이지를 찾을 수 없습니다")])
def test_an_unknown_page_elsewhere_leads_to_the_start(client: Client, language: str, text: str) -> None:
    answer = ask(client, "/nothing", language=language)
    shown = answer.content.decode()
    assert (answer.status_code, answer["Content-Type"], answer["Content-Language"]) == (404, PAGE, language)
    assert text in shown
    assert 'href="/"' in shown
    assert NAVIGATION not in shown
    assert {"Accept", "Accept-Language", "Cookie"} <= set(answer["Vary"].split(", "))


@pytest.mark.parametrize(
    "path", ["/nothing", "/admin/nothing/", "/admin/docs/nothing.md", "/admin/orders/order/1/pay/"]
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_an_unknown_page_is_the_same_in_debug_mode(
    admin_client: Client, settings: Settings, path: str, method: str
) -> None:
    settings.DEBUG = True
    strict = Client(enforce_csrf_checks=True) if path == "/nothing" else admin_client
    answer = ask(strict, path, method=method)
    assert (answer.status_code, answer["Content-Type"]) == (404, PAGE)
    assert "Nothing is here" in answer.content.decode()
    assert ask(strict, path, method=method, accept="*/*")["Content-Type"] == PROBLEM


@pytest.mark.parametrize("accept", PROGRAMS)
@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/admin/nothing/", 404), ("/admin/pipeline/", 403), ("/admin/?o=%00", 400)]
)
def test_a_program_gets_a_problem(staff: Client, path: str, status: int, accept: str) -> None:
    answer = ask(staff, path, accept=accept)
    assert (answer.status_code, answer["Content-Type"]) == (status, PROBLEM)
    assert answer.json()["status"] == status


@pytest.mark.parametrize("path", ["/api/nothing", "/health/nothing", "/metrics/nothing", "/metrics"])
def test_a_path_of_programs_has_no_pages(client: Client, path: str) -> None:
    answer = ask(client, path)
    assert (answer.status_code, answer["Content-Type"]) == (404, PROBLEM)


def test_a_page_leads_back_to_where_the_user_came_from(staff: Client) -> None:
    shown = ask(staff, "/admin/pipeline/", referer="http://testserver/admin/?a=1&b=<").content.decode()
    assert 'href="http://testserver/admin/?a=1&amp;b=&lt;"' in shown
    for foreign in ("https://evil.example/admin/", "javascript:alert(1)", "http://testserver.evil.example/", "//evil"):
        assert foreign not in ask(staff, "/admin/pipeline/", referer=foreign).content.decode()


def test_a_form_without_a_csrf_token_is_explained() -> None:
    strict = Client(enforce_csrf_checks=True)
    answer = ask(strict, "/admin/login/", method="post", language="ko")
    assert (answer.status_code, answer["Content-Type"]) == (403, PAGE)
    assert "양식이 만료되었습니다" in answer.content.decode()
    assert ask(strict, "/admin/login/", method="post", accept="application/json")["Content-Type"] == PROBLEM


@pytest.mark.parametrize("path", ["/admin/", "/nothing"])
def test_an_unknown_host_gets_a_page(client: Client, path: str) -> None:
    answer = ask(client, path, host="evil.example", referer="http://evil.example/")
    assert (answer.status_code, answer["Content-Type"]) == (400, PAGE)
    assert "evil.example" not in answer.content.decode()


# --- 500 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "text"), [("en", "The server failed"), ("ko", "서버에 오류가 발생했습니다")])
def test_a_page_that_fails_is_explained(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, language: str, text: str
) -> None:
    monkeypatch.setattr("commerce.operations.pipeline._require_permission", failing)
    admin_client.raise_request_exception = False
    answer = ask(admin_client, "/admin/pipeline/?a=1&b=2", language=language, **{"x-request-id": "request-4711"})
    shown = answer.content.decode()
    assert (answer.status_code, answer["Content-Type"]) == (500, PAGE)
    assert f'lang="{language}"' in shown
    assert text in shown
    assert "request-4711" in shown
    assert 'href="/admin/pipeline/?a=1&amp;b=2"' in shown
    assert 'href="/admin/"' in shown


def test_a_program_gets_a_problem_of_a_failure(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commerce.operations.pipeline._require_permission", failing)
    admin_client.raise_request_exception = False
    answer = admin_client.get("/admin/pipeline/state")
    assert (answer.status_code, answer["Content-Type"]) == (500, PROBLEM)


@pytest.mark.parametrize(
    "broken",
    [
        "django.contrib.admin.sites.AdminSite.each_context",
        "commerce.admin_site.navigation.sidebar",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.storage.fallback.FallbackStorage._get",
    ],
)
def test_the_page_of_a_failure_needs_nothing_of_admin(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(broken, failing)
    monkeypatch.setattr("commerce.operations.pipeline._require_permission", failing)
    admin_client.raise_request_exception = False
    answer = ask(admin_client, "/admin/pipeline/")
    assert (answer.status_code, answer["Content-Type"]) == (500, PAGE)
    assert "The server failed" in answer.content.decode()


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/admin/orders/order/", "/admin/nothing/"])
def test_a_page_without_a_database_is_explained(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Even the page for an unknown address needs the database, to know whether a user is logged in."""
    admin_client.raise_request_exception = False
    with monkeypatch.context() as away:
        away.setattr(connection, "cursor", failing)
        answer = ask(admin_client, path)
    assert (answer.status_code, answer["Content-Type"]) == (500, PAGE)
    assert "The server failed" in answer.content.decode()


# --- Logging in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "lands_on"), [("", "/admin/"), ("?next=/admin/pipeline/", "/admin/pipeline/")])
def test_a_login_lands_on_admins_index_or_on_next(query: str, lands_on: str) -> None:
    User.objects.create_superuser("boss", password="correct horse")
    body = {"username": "boss", "password": "correct horse"}
    assert Client().post(f"/admin/login/{query}", body)["Location"] == lands_on
