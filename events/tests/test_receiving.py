from collections.abc import Iterator
from uuid import uuid4

import pytest
from pytest_django import Settings

from conftest import Topics
from events.kafka import Consumer
from events.lag import group_lag
from tests.kafka_client import produce
from tests.waiting import wait_until

SHORT = 0.1
"""Seconds of a poll: the embedded broker's group takes longer to tell a member what it may read."""


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
def consumer(topics: Topics, group: str, settings: Settings) -> Iterator[Consumer]:
    settings.KAFKA_SESSION_TIMEOUT_MS = 2_000
    consumer = Consumer(topic=topics.order_events, group=group, batch_size=1)
    yield consumer
    consumer.close()


def read_and_commit(consumer: Consumer) -> None:
    consumer.commit(wait_until(lambda: consumer.poll(timeout=SHORT)))


def test_what_a_group_answers_between_two_polls_is_not_missed(topics: Topics, consumer: Consumer) -> None:
    produce(topics.order_events, b"1")
    read_and_commit(consumer)


def test_a_member_whose_topic_has_changed_stays_a_member(topics: Topics, group: str, consumer: Consumer) -> None:
    produce(topics.order_events, b"1", partition=0)
    read_and_commit(consumer)
    consumer._client._coordinator._assignment_snapshot = {topics.order_events: {0}}
    produce(topics.order_events, b"2", partition=0)

    def has_committed_both() -> bool:
        consumer.commit(consumer.poll(timeout=SHORT))
        return group_lag(topic=topics.order_events, group=group)[0].current_offset == 2

    wait_until(has_committed_both)
