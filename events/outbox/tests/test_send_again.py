"""`send_again` restarts the age of an outbox row, and does not change the event's own time."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command

from conftest import Topics
from events.database_clock import database_now
from events.models import OutboxEvent
from events.observing.readings import read_outbox
from events.outbox import recording as outbox
from events.outbox.relay import Relay
from testkit.factories import OutboxEventFactory
from testkit.kafka_client import read_topic

pytestmark = pytest.mark.django_db(transaction=True)

AGE = timedelta(days=40)
GRACE = timedelta(seconds=30)


def published() -> dict[str, Any]:
    return {"published_at": database_now() - AGE, "published_path": "fast", "published_partition": 0} | {
        "published_offset": 7
    }


def parked() -> dict[str, Any]:
    return {"parked_at": database_now() - AGE, "parked_reason": "too large"}


FROM_EACH_STATE = pytest.mark.parametrize("before", [published, parked])


def old_row(before: Callable[[], dict[str, Any]], **changes: Any) -> OutboxEvent:
    old = database_now() - AGE
    return OutboxEventFactory.create(created_at=old, recorded_at=old, **before(), **changes)


@FROM_EACH_STATE
def test_its_age_counts_from_now(before: Callable[[], dict[str, Any]]) -> None:
    row = old_row(before)
    started = database_now()
    assert outbox.send_again([row.event_id]) == 1
    assert 0 <= read_outbox().oldest_pending_seconds < 30
    again = OutboxEvent.objects.get()
    assert started <= again.recorded_at <= database_now()
    assert (again.created_at, again.message) == (row.created_at, row.message)


@FROM_EACH_STATE
def test_a_pending_row_keeps_its_age(before: Callable[[], dict[str, Any]]) -> None:
    row = old_row(before)
    waiting = OutboxEventFactory.create(recorded_at=database_now() - timedelta(hours=1))
    assert outbox.send_again([row.event_id, waiting.event_id]) == 1
    assert 3600 <= read_outbox().oldest_pending_seconds < 3700
    assert outbox.send_again([row.event_id, waiting.event_id]) == 0


@FROM_EACH_STATE
def test_the_relay_sends_it_after_its_grace_with_its_own_time(
    before: Callable[[], dict[str, Any]], topics: Topics
) -> None:
    row = old_row(before, topic=topics.order_events, partition=0)
    outbox.send_again([row.event_id])
    relay = Relay(stopping=lambda: False, wait=time.sleep)
    try:
        assert relay.sweep(older_than=GRACE) == (0, None)
        OutboxEvent.objects.update(recorded_at=database_now() - GRACE)
        assert relay.sweep(older_than=GRACE) == (1, None)
    finally:
        relay.close()
    again = OutboxEvent.objects.get()
    assert again.published_at
    assert again.published_at > again.recorded_at > again.created_at == row.created_at
    (record,) = read_topic(topics.order_events)
    assert record.value == row.value


@FROM_EACH_STATE
def test_once_sends_it_at_once(
    before: Callable[[], dict[str, Any]], topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    row = old_row(before, topic=topics.order_events)
    outbox.send_again([row.event_id])
    call_command("relay_outbox", once=True)
    assert capsys.readouterr().out == "sent 1\n"
