"""EMAIL_URL, EMAIL_FROM, SITE_URL and EMAIL_MAX_AGE: the settings they become, and messages about invalid values."""

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import get_connection
from django.core.mail.backends.smtp import EmailBackend
from pytest_django import Settings

from commerce.environment import Environment
from testkit.processes import refusal_to_start

HIDDEN = "hidden-word"


def problems(environment: Environment) -> str:
    """Return the message of the error about the environment's invalid variables; an empty text if all are valid."""
    try:
        environment.refuse_problems()
    except ImproperlyConfigured as error:
        return str(error)
    return ""


def email(url: str) -> tuple[Environment, dict[str, Any]]:
    environment = Environment({"EMAIL_URL": url})
    return environment, environment.email("EMAIL_URL")


@pytest.mark.parametrize(
    ("url", "port", "tls", "ssl"),
    [
        ("smtp://mail.example", 25, False, False),
        ("smtp://mail.example:1025", 1025, False, False),
        ("smtp+tls://mail.example", 587, True, False),
        ("smtp+tls://mail.example:25", 25, True, False),
        ("smtp+ssl://mail.example", 465, False, True),
        ("smtp+ssl://mail.example:8465", 8465, False, True),
    ],
)
def test_a_scheme_chooses_port_and_tls(settings: Settings, url: str, port: int, *, tls: bool, ssl: bool) -> None:
    environment, email_settings = email(url)
    for name, value in email_settings.items():
        setattr(settings, name, value)
    backend = get_connection()
    assert isinstance(backend, EmailBackend)
    assert (backend.host, backend.port, backend.use_tls, backend.use_ssl) == ("mail.example", port, tls, ssl)
    assert (backend.username, backend.password) == ("", "")
    assert not problems(environment)


@pytest.mark.parametrize(
    ("written", "user", "password"),
    [
        ("shop:secret", "shop", "secret"),
        ("shop%40example.com:p%3Aa%2Fs%40s%23w%3Fo%25rd", "shop@example.com", "p:a/s@s#w?o%rd"),
        ("shop:a+b%20c%2B", "shop", "a+b c+"),
        ("shop:$ecret$DATABASE_URL", "shop", "$ecret$DATABASE_URL"),
    ],
)
def test_user_and_password_are_percent_encoded(written: str, user: str, password: str) -> None:
    environment, email_settings = email(f"smtp+tls://{written}@mail.example")
    assert (email_settings["EMAIL_HOST_USER"], email_settings["EMAIL_HOST_PASSWORD"]) == (user, password)
    assert not problems(environment)


def test_a_folder_gets_files() -> None:
    _, email_settings = email("filemail:///var/mail%20box")
    assert email_settings["EMAIL_BACKEND"] == "notifications.mail.eml_files.EmailBackend"
    assert email_settings["EMAIL_FILE_PATH"] == "/var/mail box"


def test_without_a_url_nothing_is_sent() -> None:
    environment, email_settings = email("")
    assert email_settings["EMAIL_BACKEND"] == "django.core.mail.backends.dummy.EmailBackend"
    assert not problems(environment)


@pytest.mark.parametrize(
    "url",
    [
        f"http://shop:{HIDDEN}@mail.example",
        f"smtps://shop:{HIDDEN}@mail.example",
        f"smtp+tls:shop:{HIDDEN}@mail.example",
        f"shop:{HIDDEN}@mail.example",
        f"smtp://shop:{HIDDEN}@",
        f"smtp://shop:{HIDDEN}@mail.example:port",
        f"smtp://shop:{HIDDEN}@mail.example:99999",
        f"smtp://shop:{HIDDEN}/x@mail.example",
        f"smtp://shop:{HIDDEN}#x@mail.example",
        f"smtp://shop:12?{HIDDEN}@mail.example",
        f"smtp://shop:{HIDDEN}비밀@mail.example",
        f"smtp://shop:{HIDDEN}%EB%B9%84@mail.example",
        f"smtp://:{HIDDEN}@mail.example",
        f"smtp://{HIDDEN}@mail.example",
        f"smtp+ssl://shop:{HIDDEN}@mail.example?EMAIL_USE_TLS=1",
        f"smtp://shop:{HIDDEN}@[mail.example",
        f"consolemail://{HIDDEN}",
        "filemail://",
        "smtp://",
    ],
)
def test_a_bad_url_is_one_problem_and_is_not_shown(url: str) -> None:
    words = problems(email(url)[0])
    assert words.count("EMAIL_URL must be smtp://, smtp+tls:// or smtp+ssl://user:password@host:587") == 1
    assert HIDDEN not in words


def mailbox(value: str) -> str:
    environment = Environment({"EMAIL_FROM": value})
    environment.mailbox("EMAIL_FROM", is_needed=True, in_development="")
    return problems(environment)


@pytest.mark.parametrize(
    "value",
    [
        "shop@shop.example",
        "Shop <shop@shop.example>",
        '"Shop, Inc. \\"1\\"" <shop@shop.example>',
        "가게 😀 <shop@한국.kr>",
        "Commerce <commerce@localhost>",
    ],
)
def test_a_sender_may_have_a_name(value: str) -> None:
    assert mailbox(value) == ""


@pytest.mark.parametrize(
    "value",
    [
        "shop",
        "Shop, Inc. <shop@shop.example>",
        "shop@shop.example, other@shop.example",
        "Shop <shop@shop.example>\nBcc: x@shop.example",
        "Shop\n <shop@shop.example>",
        "Shop <가게@shop.example>",
        "<>",
        "@",
    ],
)
def test_a_bad_sender_is_named(value: str) -> None:
    assert f"EMAIL_FROM is {value!r}: give a mailbox, such as Shop <shop@example.com>" in mailbox(value)


def site(value: str) -> tuple[str, str]:
    environment = Environment({"SITE_URL": value})
    address = environment.site("SITE_URL", is_needed=True, in_development="")
    return address, problems(environment)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("https://shop.example", "https://shop.example"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://xn--3e0b707e.kr/shop/", "https://xn--3e0b707e.kr/shop"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_site_has_no_final_slash(value: str, address: str) -> None:
    assert site(value) == (address, "")


@pytest.mark.parametrize(
    "value",
    [
        "shop.example",
        "ftp://shop.example",
        "https://",
        "https://한국.kr",
        "https://shop.example/가게",
        "https://shop.example?a=b",
        "https://shop.example/#x",
        "https://user:word@shop.example",
        'https://shop.example/"><script>',
        "https://shop.example/>, <https://evil.example",
        "https://shop.example/\nBcc: x@shop.example",
        "https://shop.example//x",
    ],
)
def test_a_bad_site_is_named(value: str) -> None:
    assert f"SITE_URL is {value.rstrip('/')!r}: give the address of this site in ASCII" in site(value)[1]


@pytest.mark.parametrize(
    ("value", "age"), [("", timedelta(days=1)), ("90s", timedelta(seconds=90)), ("7d", timedelta(days=7))]
)
def test_an_age_is_read(value: str, age: timedelta) -> None:
    assert Environment({"EMAIL_MAX_AGE": value}).duration("EMAIL_MAX_AGE", default="24h") == age


@pytest.mark.parametrize("value", ["24", "0h", "-1h", "1.5h", "forever", "999999d", "h"])
def test_a_bad_age_is_named(value: str) -> None:
    environment = Environment({"EMAIL_MAX_AGE": value})
    environment.duration("EMAIL_MAX_AGE", default="24h")
    assert f"EMAIL_MAX_AGE is {value!r}: give a number of s, min, h or d, such as 24h" in problems(environment)


def test_a_mail_server_needs_a_sender_and_a_site() -> None:
    words = refusal_to_start(os.environ | {"EMAIL_URL": f"smtp://shop:{HIDDEN}@mail.example"})
    assert "EMAIL_FROM is not set" in words
    assert "SITE_URL is not set" in words
    assert HIDDEN not in words


def test_the_password_is_hidden_in_logs() -> None:
    variables = {
        "EMAIL_URL": f"smtp://shop:{HIDDEN}%21@mail.example",
        "EMAIL_FROM": "shop@shop.example",
        "SITE_URL": "https://shop.example",
    }
    code = (
        "import django; django.setup(); import logging; from django.conf import settings;"
        "logging.getLogger('shop').error('It is %s', settings.EMAIL_HOST_PASSWORD)"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "commerce.settings"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "It is ***" in said.stderr + said.stdout
    assert HIDDEN not in said.stderr + said.stdout
