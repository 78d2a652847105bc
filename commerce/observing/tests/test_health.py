"""The health endpoints report the state of the process, the database and Kafka. Without Kafka a process stays ready."""

import socket

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from pytest_django import Settings

from testkit.servers import Broker

pytestmark = pytest.mark.django_db


def test_live_and_ready_answer(client: Client) -> None:
    assert client.get("/health/live").status_code == 200
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["database"]) == (200, "up")


def test_ready_names_kafka_without_failing_on_it(client: Client, settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["kafka"]) == (200, "down")


def test_ready_shows_whether_kafka_answers_or_is_frozen(client: Client, settings: Settings, broker: Broker) -> None:
    assert client.get("/health/ready").json()["kafka"] == "up"
    cache.clear()
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        settings.KAFKA_BOOTSTRAP_SERVERS = [f"127.0.0.1:{frozen.getsockname()[1]}"]
        assert client.get("/health/ready").json()["kafka"] == "down"


def test_ready_fails_on_the_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(connection, "cursor", refuse)
    monkeypatch.setattr(connection, "close", lambda: None)
    assert client.get("/health/ready").status_code == 503
