"""Fixtures: a provider that fails at random, variables of the processes that use it, and a record of the checkouts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.database import rows
from testkit.participants.provider import ProviderProcess
from tests.faults.checkouts import Checkouts, env_of
from tests.faults.conftest import SHORT_SESSION, Site
from tests.faults.oracle import Oracle


@pytest.fixture
def provider(site: Site, tmp_path: Path) -> Iterator[ProviderProcess]:
    # Tests of the participants alone leave commands of their own.
    for table in ("payments_paymentcommand", "shipping_shippingcommand"):
        rows(f"DELETE FROM {table}")
    provider = ProviderProcess(
        tmp_path / "book.sqlite3",
        PROVIDER_FAULT_RATE="0.05",
        PROVIDER_SLOW_SECONDS="2",
        PROVIDER_SILENCE_SECONDS="20",
    )
    yield provider
    provider.kill()


@pytest.fixture
def env(provider: ProviderProcess) -> dict[str, str]:
    """Return the environment variables of consumers and workers of fulfilment that a test kills."""
    return {**env_of(provider), **SHORT_SESSION}


@pytest.fixture
def checkouts(oracle: Oracle) -> Checkouts:
    return Checkouts(oracle)
