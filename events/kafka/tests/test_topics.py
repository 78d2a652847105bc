"""`manage.py create_topics` on a real broker."""

from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from conftest import Topics
from testkit.kafka_client import max_message_bytes
from testkit.servers import Broker


def test_missing_topics_are_created_with_their_message_size(
    broker: Broker, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    if not broker.creates_topics:
        pytest.skip("the embedded broker does not support the request")
    settings.ORDER_EVENTS_TOPIC = f"order-events-{uuid4().hex[:8]}"
    settings.NOTIFICATION_EVENTS_TOPIC = f"notification-events-{uuid4().hex[:8]}"
    settings.SALES_EVENTS_TOPIC = f"sales-events-{uuid4().hex[:8]}"
    call_command("create_topics")
    assert capsys.readouterr().out.count("created") == 4
    call_command("create_topics")
    assert capsys.readouterr().out.count("exists") == 4
    assert max_message_bytes(f"{settings.ORDER_EVENTS_TOPIC}-dlt") == 2 * 1024 * 1024


def test_existing_topics_are_kept_and_a_small_one_is_an_error(
    topics: Topics, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("create_topics")
    assert capsys.readouterr().out.count("exists") == 4
    settings.KAFKA_TOPIC_PARTITIONS = 4
    with pytest.raises(CommandError, match="has 3 partitions, KAFKA_TOPIC_PARTITIONS asks for 4"):
        call_command("create_topics")
    settings.KAFKA_TOPIC_PARTITIONS = 2
    call_command("create_topics")
