"""PAYMENT_PROVIDER_URL and SHIPPING_PROVIDER_URL: valid values, and error messages that reveal no password."""

import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from commerce.environment import Environment
from commerce.observing.log_lines import HIDDEN

NAME = "PAYMENT_PROVIDER_URL"


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", ""),
        ("https://provider.example", "https://provider.example"),
        ("http://127.0.0.1:8090/", "http://127.0.0.1:8090"),
        ("http://[::1]:8090/v1/", "http://[::1]:8090/v1"),
        ("https://shop:pass%40word@provider.example/v1", "https://shop:pass%40word@provider.example/v1"),
    ],
)
def test_a_provider_has_no_final_slash(value: str, url: str) -> None:
    environment = Environment({NAME: value})
    assert environment.service(NAME) == url
    environment.refuse_problems()


@pytest.mark.parametrize(
    "value",
    [
        "provider.example",
        "ftp://provider.example",
        "https://",
        "https://shop:pass@word@provider.example",
        "https://shop:pass#word@provider.example",
        "https://shop@provider.example",
        "https://provider.example?a=b",
        "https://provider.example\r\nX: y",
        "https://제공자.kr",
    ],
)
def test_a_bad_provider_is_named_without_its_password(value: str) -> None:
    environment = Environment({NAME: value})
    assert environment.service(NAME) == ""
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} must be https://") as raised:
        environment.refuse_problems()
    assert "shop:pass" not in str(raised.value)


def test_the_passwords_of_providers_are_secrets() -> None:
    code = "import commerce.settings as s; print(s.SECRETS)"
    urls = {
        "PAYMENT_PROVIDER_URL": "https://a:first%40word@p.example",
        "SHIPPING_PROVIDER_URL": "https://a:second@p.example",
    }
    env = {"PATH": os.environ["PATH"], "DJANGO_DEBUG": "true", **urls}
    printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert all(f"'{word}'" in printed for word in ("first%40word", "first@word", "second"))


def test_a_secret_within_another_one_does_not_break_it_up() -> None:
    code = "import django, logging; django.setup(); logging.getLogger('commerce').warning('shop-7f3a, shop')"
    env = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "commerce.settings",
        "DJANGO_DEBUG": "true",
        "PAYMENT_PROVIDER_URL": "https://a:shop@p.example",
        "SHIPPING_PROVIDER_URL": "https://a:shop-7f3a@p.example",
    }
    logged = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stderr
    assert f"{HIDDEN}, {HIDDEN}" in logged
