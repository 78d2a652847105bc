"""Fixtures: a provider in a process of its own for each test, and a table without payment commands of earlier tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.database import rows
from testkit.participants.provider import ProviderProcess
from tests.faults.conftest import Site


@pytest.fixture
def provider(site: Site, tmp_path: Path) -> Iterator[ProviderProcess]:
    rows("DELETE FROM payments_paymentcommand")
    provider = ProviderProcess(tmp_path / "book.sqlite3", PROVIDER_SLOW_SECONDS="2", PROVIDER_SILENCE_SECONDS="20")
    yield provider
    provider.kill()
