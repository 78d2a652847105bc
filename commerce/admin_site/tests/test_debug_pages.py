import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.test import RequestFactory
from django.utils.html import escape
from django.views.debug import technical_500_response
from pytest_django import Settings

from commerce.settings import BASE_DIR

AWKWARD = """p@ss/<w&rd>'\\"1:"""
"""A password that HTML, URLs and Python each escape differently."""


def given_secrets() -> dict[str, str]:
    """Return a different secret for every variable whose name says that it is secret."""
    variables = re.findall("^([A-Z_]+)=", (BASE_DIR / ".env.example").read_text(), re.MULTILINE)
    names = [name for name in variables if re.search("KEY|PASSWORD|TOKEN|SECRET", name) and "THROTTLE" not in name]
    return {name: f"{AWKWARD}{number}{name.lower()}{'x' * 60}" for number, name in enumerate(names)}


ASK = """
import django; django.setup()
from django.test import Client
client = Client(raise_request_exception=False)
answer = client.post("/admin/login/", {"username": "admin", "password": "hunter2"}, SERVER_NAME="localhost", **META)
assert answer.status_code == 500, answer.status_code
print(answer.content.decode())
"""


@pytest.mark.parametrize("meta", ["dict()", "__import__('os').environ"])
def test_the_debug_page_of_a_database_outage_shows_no_secret(meta: str) -> None:
    secrets = given_secrets()
    assert len(secrets) >= 5
    password = secrets["POSTGRES_PASSWORD"]
    environment = secrets | {
        "DATABASE_URL": f"postgresql://shop:{quote(password, safe='')}@127.0.0.1:1/commerce",
        "DJANGO_ALLOWED_HOSTS": "localhost",
        "DJANGO_DEBUG": "true",
        "DJANGO_SETTINGS_MODULE": "commerce.settings",
    }
    # runserver adds the whole environment to the META of a request.
    page = subprocess.run(
        [sys.executable, "-c", ASK.replace("META", meta)],
        env=os.environ | environment,
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OperationalError" in page.stdout, page.stderr
    assert "127.0.0.1" in page.stdout
    assert [name for name, secret in secrets.items() for one in spellings(secret) if one in page.stdout] == []
    assert "hunter2" not in page.stdout


def spellings(secret: str) -> set[str]:
    in_python = repr(secret)[1:-1]
    return {secret, escape(secret), quote(secret), quote(secret, safe=""), in_python, escape(in_python)}


@pytest.mark.parametrize(
    "hold",
    [
        lambda secret: secret,
        lambda secret: secret.encode(),
        lambda secret: {"conn": [("password", secret)]},
        lambda secret: ("x" * 4_080) + secret,
        lambda secret: [b"x" * 70 + secret.encode()],
        lambda secret: f"postgresql://shop:{quote(secret, safe='')}@db/shop",
    ],
)
@pytest.mark.parametrize("secret", ["k" * 20, "kafka-Password-of-more-than-eighty-characters-" + "z" * 60, AWKWARD])
@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
def test_no_variable_of_a_frame_shows_a_secret(
    settings: Settings, hold: Callable[[str], Any], secret: str, accept: str
) -> None:
    settings.SECRETS = [secret]

    def fail(held: Any) -> None:
        raise ValueError(f"This failed with {held!r}")

    request = RequestFactory().get("/", headers={"accept": accept})
    try:
        fail(hold(secret))
    except ValueError:
        page = technical_500_response(request, *sys.exc_info()).content.decode()
    assert "This failed with" in page
    assert [one for one in spellings(secret) if one in page] == []
    assert secret[:18] not in page
    assert "***" in page


def test_a_password_in_any_url_is_hidden(settings: Settings) -> None:
    # Concatenated, because the debug page shows these source lines.
    password = "".join(("hun", "ter"))
    settings.CACHE_ADDRESS = f"redis://cache:{password}2@cache.internal/0"
    try:
        raise ValueError(f"smtp://shop:{password}3@mail.internal")
    except ValueError:
        page = technical_500_response(RequestFactory().get("/"), *sys.exc_info()).content.decode()
    assert "cache.internal" in page
    assert "mail.internal" in page
    assert f"{password}2" not in page
    assert f"{password}3" not in page


def test_a_variable_with_a_broken_repr_does_not_break_the_page() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    odd = Odd()
    try:
        raise ValueError(id(odd))
    except ValueError:
        page = technical_500_response(RequestFactory().get("/"), *sys.exc_info()).content.decode()
    assert "RuntimeError while showing a Odd" in page
