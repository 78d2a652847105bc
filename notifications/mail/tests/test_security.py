"""TLS and authentication. An untrusted certificate or a refused login counts as an outage, so that no mail fails."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from pytest_django import Settings

from events.work.models import LeasedWork
from events.work.outcomes import Done, ServiceUnavailable
from notifications.models import EmailDelivery
from testkit.mail.deliveries import delivery_to, let_pauses_pass, send_due, use_mail_server
from testkit.mail.server import MailServer, Security

pytestmark = pytest.mark.django_db

LOGIN = ("shop@mail.example", "p:a/s s@w#o?r%d")
Serve = Callable[..., MailServer]


@pytest.fixture
def serve(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts a mail server whose certificate this process trusts."""
    servers: list[MailServer] = []

    def serve(security: Security, *, login: tuple[str, str] | None = None, host: str = "127.0.0.1") -> MailServer:
        server = MailServer(security=security, login=login, host_of_certificate=host)
        server.authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        server.start()
        servers.append(server)
        use_mail_server(settings, server.url)
        return server

    yield serve
    for server in servers:
        server.stop()


def outage() -> str:
    """Send all due mails, and return the message of the ServiceUnavailable that this must raise.

    Check that all mails are still pending.
    """
    with pytest.raises(ServiceUnavailable) as caught:
        send_due()
    assert set(EmailDelivery.objects.values_list("state", flat=True)) == {LeasedWork.State.PENDING}
    return str(caught.value)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mails_go_through_tls_with_authentication(serve: Serve, security: Security) -> None:
    server = serve(security, login=LOGIN)
    for _ in range(3):
        delivery_to()
    assert [type(outcome) for _, outcome in send_due()] == [Done] * 3
    assert {(mail.connection, mail.was_encrypted) for mail in server.accepted} == {(1, True)}


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_unknown_authority_is_an_outage(
    serve: Serve, security: Security, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = serve(security, login=LOGIN)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    delivery_to()
    words = outage()
    assert f"127.0.0.1:{server.port} has a certificate that cannot be trusted (unable to get local issuer" in words
    assert "SSL_CERT_FILE" in words
    assert server.accepted == []
    assert server.commands["AUTH"] == 0


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_another_host_is_an_outage(serve: Serve, security: Security) -> None:
    server = serve(security, login=LOGIN, host="mail.example")
    delivery_to()
    assert "(IP address mismatch, certificate is not valid for '127.0.0.1')" in outage()
    assert server.commands["AUTH"] == 0


def test_a_server_without_tls_gets_neither_password_nor_mail(serve: Serve, settings: Settings) -> None:
    server = serve("none", login=LOGIN)
    settings.EMAIL_USE_TLS = True
    delivery_to()
    assert "STARTTLS extension not supported by server" in outage()
    assert (server.commands["AUTH"], server.accepted) == (0, [])
    settings.EMAIL_USE_TLS, settings.EMAIL_USE_SSL = False, True
    let_pauses_pass()
    assert "is not available: " in outage()


@pytest.mark.parametrize("wrong", [(LOGIN[0], "wrong"), ("nobody", LOGIN[1]), (LOGIN[0], "비밀"), ("이름", "x")])
def test_a_wrong_login_is_an_outage_and_is_not_shown(
    serve: Serve, settings: Settings, wrong: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("starttls", login=LOGIN)
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = wrong
    delivery_to()
    words = outage()
    if all(part.isascii() for part in wrong):
        assert "refuses the user and password of EMAIL_URL: it answered 535 5.7.8" in words
    assert wrong[1] not in words
    assert wrong[1] not in EmailDelivery.objects.get().last_error
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = LOGIN
    let_pauses_pass()
    send_due()
    assert len(server.accepted) == 1


def test_authentication_that_fails_for_a_while_is_an_outage(serve: Serve) -> None:
    server = serve("starttls", login=LOGIN)
    server.fail("AUTH", answer="454 4.7.0 temporary authentication failure")
    delivery_to()
    assert "454 4.7.0 temporary authentication failure" in outage()


def test_a_missing_login_is_an_outage(serve: Serve, settings: Settings) -> None:
    serve("starttls", login=LOGIN)
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    delivery_to()
    assert "answered 530 5.7.0 Authentication required" in outage()


def test_old_versions_of_tls_are_refused(serve: Serve) -> None:
    server = serve("tls", login=LOGIN)
    assert server.tls is not None
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server.tls.maximum_version = ssl.TLSVersion.TLSv1_1
    delivery_to()
    assert "is not available: " in outage()
