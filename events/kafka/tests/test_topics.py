"""`manage.py create_topics` on a real broker."""

from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from conftest import Topics
from events import subscriptions as registry
from testkit.kafka_client import max_message_bytes
from testkit.servers import Broker


def test_missing_topics_are_created_with_their_message_size(
    broker: Broker, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    if not broker.creates_topics:
        pytest.skip("the embedded broker does not support the request")
    suffix = uuid4().hex[:8]
    for topic in registry.topics():
        setattr(settings, topic.setting, f"{topic.name}-{suffix}")
    consumed = {one.topic.name for one in registry.subscriptions()}
    names = {topic.name for topic in registry.topics()} | {f"{name}-dlt" for name in consumed}
    assert len(names) >= 10
    call_command("create_topics")
    assert set(capsys.readouterr().out.splitlines()) == {f"{name}: created" for name in names}
    call_command("create_topics")
    assert set(capsys.readouterr().out.splitlines()) == {f"{name}: exists" for name in names}
    assert max_message_bytes(f"{settings.ORDER_EVENTS_TOPIC}-dlt") == 2 * 1024 * 1024


def test_existing_topics_are_kept_and_a_small_one_is_an_error(
    topics: Topics, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("create_topics")
    assert {f"{topic}: exists" for topic in topics} <= set(capsys.readouterr().out.splitlines())
    settings.KAFKA_TOPIC_PARTITIONS = 4
    with pytest.raises(CommandError, match="has 3 partitions, KAFKA_TOPIC_PARTITIONS asks for 4"):
        call_command("create_topics")
    settings.KAFKA_TOPIC_PARTITIONS = 2
    call_command("create_topics")
