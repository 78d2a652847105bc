"""Fixtures: a database and a Kafka on which only the test's processes run."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from pytest_django import Settings

from testkit.apache_kafka import ApacheKafka
from testkit.participants.provider import ProviderProcess
from testkit.postgres import CrashingPostgres


@pytest.fixture
def empty_servers(
    postgres: CrashingPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Iterator[None]:
    """Let the environment name an empty database and an empty Kafka for all processes that the test starts.

    Otherwise the new orders would get the ids of other tests' orders, whose events are on the topics.
    """
    name = f"upgrade_{uuid4().hex[:8]}"
    _execute(postgres.url, f"CREATE DATABASE {name}")
    kafka = ApacheKafka(tmp_path / "kafka")
    kafka.start()
    monkeypatch.setenv("DATABASE_URL", postgres.url.replace("/commerce?", f"/{name}?"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    settings.KAFKA_BOOTSTRAP_SERVERS = [kafka.bootstrap_servers]
    yield
    kafka.stop()
    _execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[ProviderProcess]:
    provider = ProviderProcess(tmp_path / "book.sqlite3")
    yield provider
    provider.kill()


def _execute(url: str, sql: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True  # PostgreSQL creates and drops no database within a transaction.
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
    finally:
        connection.close()
