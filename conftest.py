"""Fixtures for the tests of every app. Tests that request `broker` get the marker `kafka`."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from django.contrib.auth.models import User
from django.core.cache import cache
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.accounts.hashers import NormalizingHasher
from events.outbox.publisher import RecordingPublisher, current_publisher
from events.process.shutdown import SIGNALS
from events.wire import timestamps
from testkit import servers
from testkit.factories import UserFactory
from testkit.processes import CHECKOUT, ProductProcess
from testkit.releases.checkouts import NoSuchCommit, checked_out
from testkit.releases.previous import PREVIOUS_RELEASE


def pytest_configure() -> None:
    """Compile the translations that are missing or have changed, as `make` does, so that `pytest` works by itself."""
    for source in CHECKOUT.glob("commerce/*locale/ko/LC_MESSAGES/*.po"):
        compiled = source.with_suffix(".mo")
        if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
            with source.open("rb") as texts, compiled.open("wb") as output:
                write_mo(output, read_po(texts, locale="ko"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(autouse=True)
def publisher(settings: Settings) -> RecordingPublisher:
    """Record published events instead of sending them. Tests that need a real publisher set another one."""
    settings.EVENT_PUBLISHER = "events.outbox.publisher.RecordingPublisher"
    current = current_publisher()
    assert isinstance(current, RecordingPublisher)
    return current


@pytest.fixture
def broker() -> servers.Broker:
    """Return the session's broker: the embedded one, or Apache Kafka with `--broker=apache` or `proxied`."""
    return servers.broker


class Topics(NamedTuple):
    order_events: str
    dead_letters: str
    notification_events: str
    sales_events: str


@pytest.fixture
def topics(broker: servers.Broker, settings: Settings) -> Topics:
    """Create empty topics for this test, and set them as the configured topics."""
    suffix = uuid4().hex[:8]
    settings.ORDER_EVENTS_TOPIC = f"order-events-{suffix}"
    settings.NOTIFICATION_EVENTS_TOPIC = f"notification-events-{suffix}"
    settings.SALES_EVENTS_TOPIC = f"sales-events-{suffix}"
    topics = Topics(
        settings.ORDER_EVENTS_TOPIC,
        f"{settings.ORDER_EVENTS_TOPIC}-dlt",
        settings.NOTIFICATION_EVENTS_TOPIC,
        settings.SALES_EVENTS_TOPIC,
    )
    for topic in topics:
        broker.create_topic(topic, partitions=servers.PARTITIONS)
    return topics


SetClock = Callable[[timedelta], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Return a function that sets this process's clock ahead of the database's clock by a length of time."""
    true_time = time.time

    def set_clock(ahead: timedelta) -> None:
        class Clock:
            @staticmethod
            def now(timezone: tzinfo) -> datetime:
                return datetime.now(timezone) + ahead

        monkeypatch.setattr(timestamps, "datetime", Clock)
        monkeypatch.setattr(time, "time", lambda: true_time() + ahead.total_seconds())

    return set_clock


@pytest.fixture(scope="session")
def site_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Migrate the database that processes of the product use. Django in this process uses a separate test database."""
    migrate = ProductProcess("django", "migrate", log=tmp_path_factory.mktemp("logs") / "migrate.log")
    assert migrate.process.wait(60) == 0, migrate.log.read_text()


@pytest.fixture(scope="session")
def previous_release() -> Iterator[Path]:
    """Return the folder with the previous release's files.

    A clone without that release's commit skips the test. In CI (the variable CI is set), this is an error.
    """
    try:
        with checked_out(PREVIOUS_RELEASE) as checkout:
            yield checkout
    except NoSuchCommit as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))


@pytest.fixture
def user(db: None) -> User:
    return UserFactory.create()


@pytest.fixture
def api(user: User) -> APIClient:
    """Return an API client that is logged in as `user`."""
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.fixture
def anonymous() -> APIClient:
    return APIClient()


@pytest.fixture(autouse=True)
def _fast_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NormalizingHasher, "iterations", 1)


@pytest.fixture(autouse=True)
def _restore_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers after each test.

    A command that a test calls sets its own handlers. With these, a signal would end pytest with exit code 0.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    yield
    cache.clear()
