import logging
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import RefreshToken

from commerce.log_lines import LineFormatter
from tests.processes import WebServer


def line(message: str, *args: object, **options: Any) -> str:
    record = logging.LogRecord("shop", logging.ERROR, __file__, 1, message, args, options.get("exc_info"))
    return LineFormatter("{levelname} {message}", style="{", secrets=["the-signing-key"]).format(record)


def test_a_line_is_written_as_it_is() -> None:
    assert line("Order %s: 주문이 생성되었습니다.", 7) == "ERROR Order 7: 주문이 생성되었습니다."


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028", "\u2029", "\x1b[2K", "\0"])
def test_nobody_ends_a_line_of_the_log(end: str) -> None:
    written = line("No user %s", f"mina{end}INFO admin logged in")
    assert len(written.splitlines()) == 1
    assert end not in written
    assert written.endswith("INFO admin logged in")


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        written = line("Failed", exc_info=sys.exc_info())
    assert len(written.splitlines()) == 1
    assert r"ValueError: one\ntwo" in written


@pytest.mark.parametrize(
    "message",
    [
        "Authorization: Bearer @",
        "headers {'Authorization': 'Bearer @', 'Accept': '*/*'}",
        'body {"username":"mina","password":"@"}',
        "body {'username': 'mina', 'password': '@'}",
        'body {"password" : "quoted \\" @"}',
        "GET /login?password=@&next=/",
        "new_password=@",
        '{"refresh":"@"}',
        "token: @",
        "the-signing-key @",
        "postgresql://shop:@@127.0.0.1:5432/shop",
        "DETAIL:  Failing row contains (7, mina, @).",
        "eyJhbGciOiJIUzI1NiJ9.@.c2lnbmF0dXJl",
    ],
)
def test_a_secret_is_hidden_wherever_it_stands(message: str) -> None:
    secret = "the-signing-key" if "signing" in message else "hunter2"
    assert secret not in line("%s", message.replace("@", "hunter2", 1))
    assert "***" in line("%s", message.replace("@", "hunter2", 1))


@pytest.mark.django_db
def test_a_failing_request_leaves_one_line_without_its_body_or_token(
    user: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**order: object) -> None:
        raise RuntimeError("disk\nfull")

    monkeypatch.setattr("orders.views.place_order", fail)
    token = str(RefreshToken.for_user(user).access_token)
    body = '{"items":[{"productId":1,"quantity":2,"price":100.00}],"note":"hunter2","password":"hunter3"}'
    client = APIClient(headers={"authorization": f"Bearer {token}"})
    assert client.post("/api/orders", body, content_type="application/json").status_code == 500
    formatter = LineFormatter("{levelname} {name}: {message}", style="{")
    written = [formatter.format(record) for record in caplog.records]
    assert len([one for one in written if "RuntimeError" in one]) == 1
    assert not [one for one in written if len(one.splitlines()) > 1]
    for secret in (token, "hunter2", "hunter3"):
        assert not [one for one in written if secret in one]


def test_the_configured_log_writes_such_lines_and_knows_the_keys() -> None:
    formatter = next(one for one in logging.getLogger().handlers if isinstance(one.formatter, LineFormatter)).formatter
    assert formatter is not None
    record = logging.LogRecord("shop", logging.ERROR, __file__, 1, settings.JWT_SIGNING_KEY, (), None)
    assert formatter.format(record) == "ERROR shop: ***"


def test_the_web_servers_own_lines_are_such_lines(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    server = WebServer("--access-logfile", "-", log=log)
    try:
        httpx.get(f"{server.url}/health/live?password=hunter2%0aforged", trust_env=False)
        httpx.get(f"{server.url}/api/orders", headers={"authorization": "Bearer hunter3"}, trust_env=False)
    finally:
        server.stop()
    written = log.read_text()
    assert "/health/live?password=***" in written
    assert "hunter" not in written
    assert "forged" not in [one.split()[0] for one in written.splitlines() if one]
