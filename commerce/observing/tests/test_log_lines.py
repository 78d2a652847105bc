import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import RefreshToken

from commerce.observing.log_lines import JSONFormatter, LineFormatter
from events.correlation import log_context
from events.wire.foreign_text import TEXT_LIMIT_CHARS
from notifications.mail import pages
from notifications.mail.opting_out import link_for
from testkit.processes import WebServer


def line(message: str, *args: object, **options: Any) -> str:
    record = logging.LogRecord("shop", logging.ERROR, __file__, 1, message, args, options.get("exc_info"))
    return LineFormatter("{levelname} {message}", style="{", secrets=["the-signing-key"]).format(record)


def test_an_ordinary_line_is_unchanged() -> None:
    assert line("Order %s: 주문이 생성되었습니다.", 7) == "ERROR Order 7: 주문이 생성되었습니다."


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028", "\u2029", "\x1b[2K", "\0"])
def test_no_character_ends_a_log_line(end: str) -> None:
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
        'body {"password":"never ended @',
        "body {'password': 'never ended \\\\@",
    ],
)
def test_a_secret_is_hidden_everywhere(message: str) -> None:
    secret = "the-signing-key" if "signing" in message else "hunter2"
    assert secret not in line("%s", message.replace("@", "hunter2", 1))
    assert "***" in line("%s", message.replace("@", "hunter2", 1))


SPLIT = {
    "a configured key": ("the-signing-key", "the-signing-key"),
    "a bearer token": ("Authorization: Bearer 0123456789abcdef", "0123456789abcdef"),
    "a JSON Web Token": ("eyJhbGciOiJI.UzI1NiJ9abcd.c2lnbmF0dXJl", "eyJhbGciOiJI.UzI1NiJ9abcd.c2lnbmF0dXJl"),
    "a password in a URL": ("postgresql://shop:0123456789abcdef@db/shop", "0123456789abcdef"),
    "a password in JSON": ('{"password":"0123456789 abcdef"}', "0123456789 abcdef"),
    "a password in Python": ("{'password': '0123456789 abcdef'}", "0123456789 abcdef"),
    "a password in a query": ("/?password=0123456789abcdef&a=b", "0123456789abcdef"),
}


@pytest.mark.parametrize(("message", "secret"), SPLIT.values(), ids=SPLIT)
def test_no_part_of_a_secret_split_by_the_cut_is_shown(message: str, secret: str) -> None:
    begins = message.index(secret)
    for shown in range(4, len(secret)):
        text = "." * (TEXT_LIMIT_CHARS - begins - shown - len("ERROR ")) + message + "." * 100
        written = line("%s", text)
        assert secret[:4] not in written, shown
        assert f"(the first {TEXT_LIMIT_CHARS} of {len(text) + len('ERROR ')} characters)" in written


@pytest.mark.parametrize("piece", ["x", "eyJ-", "주", "\0", "token=", "\n"])
def test_a_long_message_is_cut_and_says_so(piece: str) -> None:
    text = piece * 200_000
    assert f"(the first {TEXT_LIMIT_CHARS} of {len(text) + len('ERROR ')} characters)" in line("%s", text)
    record = logging.LogRecord("shop", logging.ERROR, __file__, 1, "%s", (text,), None)
    message = json.loads(JSONFormatter().format(record))["message"]
    assert message.endswith(f"(the first {TEXT_LIMIT_CHARS} of {len(text)} characters)")
    assert len(message) < TEXT_LIMIT_CHARS + 100


def test_a_long_text_in_an_exception_crowds_out_no_frame() -> None:
    try:
        raise ValueError("password=" + "x" * 200_000) from KeyError("y" * 200_000)
    except ValueError:
        written = line("Failed", exc_info=sys.exc_info())
    assert "test_a_long_text_in_an_exception_crowds_out_no_frame" in written
    assert "ValueError: password=***" in written
    assert len(written) < 2 * TEXT_LIMIT_CHARS


def test_a_stack_trace_of_another_formatter_is_cleaned() -> None:
    try:
        raise ValueError("the-signing-key")
    except ValueError:
        record = logging.LogRecord("shop", logging.ERROR, __file__, 1, "Failed", (), sys.exc_info())
    logging.Formatter().format(record)
    assert "the-signing-key" in str(record.exc_text)
    assert "the-signing-key" not in LineFormatter(secrets=["the-signing-key"]).format(record)
    record.exc_info = None
    record.exc_text = "the-signing-key"
    assert "the-signing-key" not in LineFormatter(secrets=["the-signing-key"]).format(record)


@pytest.mark.django_db
def test_a_failing_request_logs_neither_body_nor_token(
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


def test_the_configured_log_hides_the_configured_keys() -> None:
    formatter = next(one for one in logging.getLogger().handlers if isinstance(one.formatter, LineFormatter)).formatter
    assert formatter is not None
    record = logging.LogRecord("shop", logging.ERROR, __file__, 1, settings.JWT_SIGNING_KEY, (), None)
    assert formatter.format(record) == "ERROR shop: ***"


def test_the_json_format_writes_one_object_a_line() -> None:
    formatter = JSONFormatter(secrets=["hunter2"])
    try:
        raise ValueError("hunter2\x85\ntwo")
    except ValueError:
        record = logging.LogRecord("shop", logging.ERROR, __file__, 1, "주문 %s\n", ("\u2028hunter2",), sys.exc_info())
    written = formatter.format(record)
    assert len(written.splitlines()) == 1
    parsed = json.loads(written)
    assert parsed["message"] == "주문 \u2028***\n"
    assert "ValueError: ***\x85\ntwo" in parsed["exception"]
    assert (parsed["level"], parsed["logger"]) == ("ERROR", "shop")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", parsed["time"])


@pytest.mark.parametrize(("debug", "kind"), [("true", "LineFormatter"), ("false", "JSONFormatter")])
def test_production_logs_for_machines_and_development_for_people(debug: str, kind: str) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", "from commerce.settings import LOGGING; print(LOGGING['formatters']['line']['()'])"],
        env=os.environ | {"DJANGO_DEBUG": debug, "LOG_FORMAT": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout == f"commerce.observing.log_lines.{kind}\n"


def test_a_line_names_its_request_and_its_trace() -> None:
    headers = [("x-request-id", b"r-1"), ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "Saved", (), None)
    with log_context(headers):
        parsed = json.loads(JSONFormatter().format(record))
        text = line("Saved")
    assert (parsed["requestId"], parsed["traceId"]) == ("r-1", "0af7651916cd43dd8448eb211c80319c")
    assert text == "ERROR Saved [requestId=r-1 traceId=0af7651916cd43dd8448eb211c80319c]"
    assert "requestId" not in JSONFormatter().format(record)


@pytest.mark.parametrize("forged", [b"a b", b"x\nINFO admin logged in", b"\xff", b"x" * 129, b"", None])
def test_a_request_id_that_could_forge_a_line_is_not_written(forged: bytes | None) -> None:
    with log_context([("x-request-id", forged)]):
        assert line("Saved") == "ERROR Saved"


def test_an_answer_names_its_request(client: Client) -> None:
    assert client.get("/health/live", headers={"x-request-id": "shop-7/1"})["X-Request-ID"] == "shop-7/1"
    for given in ({}, {"x-request-id": "a b"}, {"x-request-id": "x" * 129}):
        assert re.fullmatch("[0-9a-f]{32}", client.get("/health/live", headers=given)["X-Request-ID"])


@pytest.mark.django_db
def test_a_failed_request_is_found_by_its_request_id(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(JSONFormatter().format(record))

    def fail(**order: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("orders.views.place_order", fail)
    client = APIClient()
    client.force_authenticate(user)
    keeping = Keeping()
    logging.getLogger().addHandler(keeping)
    try:
        body = {"items": [{"productId": 1, "quantity": 2, "price": 100}]}
        response = client.post("/api/orders", body, format="json")
    finally:
        logging.getLogger().removeHandler(keeping)
    (parsed,) = [json.loads(one) for one in written if "disk full" in one]
    assert parsed["requestId"] == response["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", parsed["traceId"])


def test_development_logs_each_record_once(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    server = WebServer(log=log, env={"DJANGO_DEBUG": "true"})
    try:
        assert httpx.get(f"{server.url}/", headers={"host": "stranger"}, trust_env=False).status_code == 400
    finally:
        server.stop()
    (said,) = (one for one in log.read_text().splitlines() if "stranger" in one)
    assert said.startswith("ERROR django.security.DisallowedHost")


@pytest.mark.django_db
@pytest.mark.parametrize("formatter", [LineFormatter, JSONFormatter])
def test_no_log_line_has_the_token_of_a_mails_link(
    client: Client,
    user: User,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    formatter: type[logging.Formatter],
) -> None:
    """Django logs the path of a page that fails or is refused. The link in a mail has its token in the path."""
    client.raise_request_exception = False
    path = urlsplit(link_for(user.pk)).path
    token = path.rpartition("/")[2]
    with caplog.at_level(logging.DEBUG, logger="django.request"):
        client.get(path)
        client.get(f"{path}x")
        client.delete(path)
        monkeypatch.setattr(pages, "user_of", lambda _: Path(path).read_text())
        assert client.get(path).status_code == 500
    lines = [formatter().format(record) for record in caplog.records]
    assert sum("/email/opt-out/***" in line for line in lines) >= 3
    assert [line for line in lines if token in line or token.split(":")[1][:20] in line] == []
