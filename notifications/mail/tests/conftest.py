"""A mail server for each test, to which this process sends."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from testkit.mail_server import MailServer
from testkit.mails import use_mail_server


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    server = MailServer()
    server.start()
    use_mail_server(settings, server.url)
    yield server
    server.stop()
