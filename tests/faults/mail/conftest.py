"""Fixtures: a mail server for each test, and a table without e-mail deliveries of earlier tests."""

from collections.abc import Iterator

import pytest

from testkit.database import rows
from testkit.mail.server import MailServer
from tests.faults.conftest import Site


@pytest.fixture
def server(site: Site) -> Iterator[MailServer]:
    rows("DELETE FROM notifications_emaildelivery")
    server = MailServer()
    server.start()
    yield server
    server.stop()
