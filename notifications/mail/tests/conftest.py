"""A mail server for each test, to which this process sends."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from testkit.mail.deliveries import use_mail_server
from testkit.mail.server import MailServer


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    server = MailServer()
    server.start()
    use_mail_server(settings, server.url)
    yield server
    server.stop()
