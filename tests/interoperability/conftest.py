"""Fixtures that send the product's records, consume other programs' records, and run a Spring service."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection

from conftest import Topics
from events.models import OutboxEvent
from events.outbox.relay import Relay
from orders.services import Line, place_order
from testkit.processes import ProductProcess
from testkit.servers import Broker
from tests.interoperability.spring import MissingProgram, SpringService

Consume = Callable[[], None]


@pytest.fixture
def consume(topics: Topics, tmp_path: Path, transactional_db: None) -> Consume:
    """Return a function that runs the product's consumer on the test's topic and database until it has caught up.

    The function then sends the events that the consumer has recorded, such as dead letters.
    """
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    env = {
        "DATABASE_URL": database,
        "DJANGO_SETTINGS_MODULE": "testkit.own_topic_settings",
        "OWN_TOPIC": topics.order_events,
    }

    def consume() -> None:
        command = ("django", "consume_order_events", "--until-caught-up", "--group", topics.order_events)
        process = ProductProcess(*command, log=tmp_path / "consumer.log", env=env)
        try:
            assert process.process.wait(60) == 0, process.log.read_text()
        finally:
            process.kill()
        relay()

    return consume


def relay() -> None:
    """Send all pending events. Raises AssertionError if one is left."""
    relay = Relay(stopping=lambda: False, wait=time.sleep)
    try:
        _, outage = relay.sweep(older_than=timedelta(0))
        assert outage is None
    finally:
        relay.close()
    assert not OutboxEvent.objects.pending().exists()


@pytest.fixture
def placed(topics: Topics, transactional_db: None, user: User) -> list[dict[str, Any]]:
    """Place orders and send their events to the topic. Return the JSON that the contract demands for each event."""
    prices = [Decimal("0.00"), Decimal("0.10"), Decimal("25000"), Decimal("9999999999.99")]
    placed = [place_order(user_id=user.pk, lines=[Line(1, 1_000_000, price)]) for price in prices]
    relay()
    return [
        {
            "eventId": str(event.event_id),
            "eventType": "ORDER_CREATED",
            "timestamp": f"{order.created_at:%Y-%m-%dT%H:%M:%S}.{order.created_at.microsecond // 1000:03}Z",
            "orderId": order.pk,
            "userId": user.pk,
            "totalAmount": order.total_amount,
        }
        for order, event in placed
    ]


@pytest.fixture(scope="session")
def spring_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpringService]:
    try:
        service = SpringService(
            bootstrap_servers=",".join(settings.KAFKA_BOOTSTRAP_SERVERS),
            log=tmp_path_factory.mktemp("spring") / "service.log",
        )
    except MissingProgram as reason:
        pytest.skip(f"A service on Spring Kafka cannot run here: {reason}")
    yield service
    service.stop()


@pytest.fixture
def spring(broker: Broker, request: pytest.FixtureRequest) -> SpringService:
    """Return the running Spring service, or skip the test without Apache Kafka, Java or Maven.

    The first test that needs the service builds and starts it.
    """
    if not broker.creates_topics:
        pytest.skip("The Spring tests need Apache Kafka: run `make test-kafka`")
    service: SpringService = request.getfixturevalue("spring_service")
    return service
