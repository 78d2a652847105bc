"""`GET /` is a page for people and JSON for programs."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import resolve
from django.utils import translation
from pytest_django import Settings

import commerce

PACKAGE = Path(commerce.__file__).parent
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def get(client: Client, accept: str, **headers: str) -> Any:
    response = client.get("/", headers={"accept": accept, **headers})
    assert response.status_code == 200
    return response


@pytest.mark.parametrize(
    "accept",
    [
        CHROMIUM,
        "text/html",
        "TEXT/HTML",
        "text/*",
        "text/html;level=1",
        "text/html, text/*;q=0.5, image/*, application/*",
        "text/html, */*",
        "application/json;q=0.8, text/html;q=0.9",
        "application/json;q=0, */*",
        "*/*;q=0.1, text/html;q=0.2",
    ],
)
def test_a_client_that_prefers_html_gets_the_page(client: Client, accept: str) -> None:
    assert get(client, accept)["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json, text/plain, */*",
        "application/*",
        "text/html;q=0.4, application/json;q=0.5",
        "text/html;q=0.4, */*",
        "text/html;q=0, */*",
        "text/html;q=0",
        "text/html;q=0, text/plain",
        "*/*",
        "",
        "image/png",
        "text/html, application/json",
        "nonsense",
        "text/html;q*=no-such-encoding'x'%41",
    ],
)
def test_every_other_client_gets_json(client: Client, accept: str) -> None:
    response = get(client, accept)
    assert (response["Content-Type"], response["Vary"]) == ("application/json", "Accept")


@pytest.mark.parametrize(
    "accept", ["text/html;q=2;;=,", ";", "/", "text/html;q=nan", "a" * 20_000, 'text/html;a="' * 50]
)
def test_an_odd_accept_header_is_not_a_server_error(client: Client, accept: str) -> None:
    get(client, accept)


def test_a_client_that_names_no_type_gets_json(client: Client) -> None:
    assert client.get("/")["Content-Type"] == "application/json"


@pytest.mark.django_db
@pytest.mark.parametrize("debug", [False, True])
def test_page_and_json_have_the_same_working_links(client: Client, settings: Settings, debug: bool) -> None:
    settings.DEBUG = debug
    body = get(client, "application/json").json()
    links = {name: target for name, target in body.items() if name not in ("demoAccounts", "mails")}
    page = get(client, CHROMIUM).content.decode()
    assert re.findall('<a href="(.*?)"', page) == list(links.values())
    for target in links.values():
        assert resolve(target)
        assert client.get(target).status_code in (200, 302)


@pytest.mark.django_db
def test_development_shows_working_demo_accounts(client: Client, settings: Settings) -> None:
    for accept in ("application/json", CHROMIUM):
        assert "demo-password" not in get(client, accept).content.decode()
    settings.DEBUG = True
    call_command("create_demo_accounts")
    assert "demo-password" in get(client, CHROMIUM).content.decode()
    for account in get(client, "application/json").json()["demoAccounts"]:
        assert client.post("/api/auth/token", account, content_type="application/json").status_code == 200


@pytest.mark.parametrize(
    ("debug", "folder", "is_shown"),
    [(True, "/srv/shop/var/mail", True), (True, None, False), (False, "/srv/shop/var/mail", False)],
)
def test_development_shows_where_the_mails_lie(
    client: Client, settings: Settings, debug: bool, folder: str | None, is_shown: bool
) -> None:
    settings.DEBUG = debug
    settings.EMAIL_FILE_PATH = folder
    assert get(client, "application/json").json().get("mails") == (folder if is_shown else None)
    assert ("<code>/srv/shop/var/mail</code>" in get(client, CHROMIUM).content.decode()) is is_shown


def test_the_page_needs_no_database(client: Client) -> None:
    assert "Go on from here" in get(client, CHROMIUM).content.decode()


@pytest.mark.parametrize("accept", [CHROMIUM, "application/json"])
def test_head_is_get_without_the_body(client: Client, accept: str) -> None:
    head, whole = client.head("/", headers={"accept": accept}), get(client, accept)
    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Type"] == whole["Content-Type"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options", "trace"])
def test_no_other_method_is_accepted(method: str) -> None:
    response = getattr(Client(enforce_csrf_checks=True), method)("/")
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("wanted", "spoken", "text"),
    [
        ("ko", "ko", "여기서 이어 가기"),
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko", "여기서 이어 가기"),
        ("en;q=0.5,ko", "ko", "여기서 이어 가기"),
        ("fr", "en", "Go on from here"),
        ("en-GB,ko;q=0.5", "en", "Go on from here"),
    ],
)
def test_the_page_is_in_the_users_language(client: Client, wanted: str, spoken: str, text: str) -> None:
    page = get(client, CHROMIUM, **{"accept-language": wanted})
    assert page["Content-Language"] == spoken
    assert f'<html lang="{spoken}">' in page.content.decode()
    assert text in page.content.decode()
    assert {"Accept", "Accept-Language", "Cookie"} <= set(page["Vary"].split(", "))


@pytest.mark.django_db
def test_the_next_request_is_in_english(client: Client) -> None:
    get(client, CHROMIUM, **{"accept-language": "ko"})
    assert translation.get_language() == "en"


def test_the_page_has_no_foreign_resource_and_no_inline_script(client: Client) -> None:
    page = get(client, CHROMIUM)
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', page.content.decode())
    assert "<script" not in page.content.decode()
    assert page["Content-Security-Policy"].startswith("default-src 'self'")
    assert "csrftoken" not in page.cookies


@pytest.mark.parametrize("name", ["templates/commerce/start.html", "devserver/templates/devserver/start.html"])
def test_every_text_of_the_page_is_korean(name: str) -> None:
    texts = re.findall(r'{% translate "(.*?)" %}', (PACKAGE / name).read_text())
    assert len(texts) > 10
    with translation.override("ko"):
        assert [text for text in texts if translation.gettext(text) == text] == []


def test_production_does_not_import_the_development_server() -> None:
    """The container image lacks `commerce/devserver`, so an import of it would fail there."""
    code = f"""
import sys
sys.modules["commerce.devserver"] = None
import django
django.setup()
from django.test import RequestFactory
from django.urls import resolve
page = resolve("/").func(RequestFactory().get("/", headers={{"accept": {CHROMIUM!r}}}))
print(page.status_code, "show.js" in page.content.decode())
"""
    asked = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment()
    )
    assert asked.stdout == "200 False\n", asked.stderr


def test_without_make_run_there_are_no_controls(client: Client) -> None:
    for path in ("/devserver/token", "/devserver/state", "/devserver/switch"):
        assert client.post(path).status_code == 404


def test_production_has_no_controls_in_any_environment() -> None:
    code = "from django.conf import settings; print('commerce.devserver' in settings.INSTALLED_APPS)"
    for debug, there in (("false", "False\n"), ("true", "True\n")):
        environment = _environment() | {"DJANGO_DEBUG": debug, "DEVSERVER_SOCKET": "/nowhere", "DEVSERVER_KEY": "key"}
        asked = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        assert asked.stdout == there


def _environment() -> dict[str, str]:
    return os.environ | {"DJANGO_SETTINGS_MODULE": "commerce.settings"}
