import json
import os
import re
import socket
import subprocess
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from conftest import Topics
from events.kafka import Consumer, lag
from events.kafka.cluster import Member, Offsets, group_members
from events.kafka.lag import CaughtUp, group_lag
from testkit.kafka_client import produce
from testkit.processes import CHECKOUT
from testkit.servers import Broker
from testkit.subscriptions import read_and_commit
from testkit.waiting import wait_until


def test_lag_counts_uncommitted_records(topics: Topics, capsys: pytest.CaptureFixture[str]) -> None:
    group = f"group-{uuid4().hex[:8]}"
    produce(topics.order_events, b"1", partition=0)
    caught_up = CaughtUp(topic=topics.order_events, group=group)
    assert not caught_up()
    read_and_commit(topics.order_events, group, 1)
    wait_until(caught_up)
    produce(topics.order_events, b"2", partition=0)
    behind, *others = group_lag(topic=topics.order_events, group=group)
    assert (behind.partition, behind.current_offset, behind.end_offset, behind.lag) == (0, 1, 2, 1)
    assert behind.seconds_behind is not None
    assert 0 <= behind.seconds_behind < 60
    assert [(one.current_offset, one.end_offset, one.lag, one.seconds_behind) for one in others] == [
        (None, 0, None, None)
    ] * 2

    call_command("consumer_lag", group=group, json=True)
    (listed,) = (
        one
        for one in json.loads(capsys.readouterr().out)
        if (one["topic"], one["partition"]) == (topics.order_events, 0)
    )
    assert listed | {"secondsBehind": 0} == {
        "topic": topics.order_events,
        "partition": 0,
        "currentOffset": 1,
        "endOffset": 2,
        "lag": 1,
        "secondsBehind": 0,
    }
    call_command("consumer_lag", group=group)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["topic", "partition", "currentOffset", "endOffset", "lag", "secondsBehind"]
    assert [topics.order_events, "0", "1", "2", "1"] in [line.split()[:5] for line in lines]


def test_members_of_a_group_are_told_apart(topics: Topics, broker: Broker) -> None:
    group = f"group-{uuid4().hex[:8]}"
    consumer = Consumer(topic=topics.order_events, group=group, batch_size=1)
    try:
        produce(topics.order_events, b"1")
        wait_until(lambda: consumer.poll(timeout=1))
        members = group_members(group=group, topic=topics.order_events)
    finally:
        consumer.close()
    if broker.creates_topics:
        assert members == [Member(f"{socket.gethostname()}-{os.getpid()}", "127.0.0.1", [0, 1, 2])]
    else:
        assert members is None, "The embedded broker describes groups now: show the members"


def test_commands_report_an_unreachable_kafka(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    monkeypatch.setattr("events.kafka.connecting.CONNECT_TIMEOUT_MS", 500)
    for command in ("consumer_lag", "create_topics"):
        with pytest.raises(CommandError, match="does not answer"):
            call_command(command)


def test_the_runbooks_command_resets_a_groups_offsets(topics: Topics, broker: Broker) -> None:
    if not broker.creates_topics:
        pytest.skip("the embedded broker does not describe groups: run make test-kafka")
    group = f"group-{uuid4().hex[:8]}"
    produce(topics.order_events, b"1", partition=0)
    read_and_commit(topics.order_events, group, 1)
    runbook = (CHECKOUT / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"^\$ (\S+kafka-python (?:.*\\\n)*.*)", runbook, re.MULTILINE)
    command = command.replace("notification-consumer-group", group).replace("order-events", topics.order_events)
    subprocess.run(command, shell=True, cwd=CHECKOUT, check=True)
    assert [one.current_offset for one in group_lag(topic=topics.order_events, group=group)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("later", "has_caught_up"),
    [
        ({0: (99, 100), 1: (5, 5)}, False),
        ({0: (100, 100), 1: (5, 5)}, True),
        # The topic's metadata has an error, such as a leader that is not known yet.
        ({}, False),
        # The topic was deleted and made anew, with fewer records or partitions.
        ({0: (2, 3)}, False),
        ({0: (3, 3)}, True),
    ],
)
def test_a_group_catches_up_with_the_records_that_exist(
    monkeypatch: pytest.MonkeyPatch, later: dict[int, tuple[int, int]], has_caught_up: bool
) -> None:
    looks = iter([{0: (0, 100), 1: (0, 5)}, later])

    class StubViewer:
        def __init__(self, *, group: str) -> None: ...

        def offsets(self, topic: str) -> dict[int, Offsets]:
            return {
                one: Offsets(beginning=0, committed=committed, end=end) for one, (committed, end) in next(looks).items()
            }

    monkeypatch.setattr(lag, "Viewer", StubViewer)
    caught_up = CaughtUp(topic="order-events", group="group")
    assert not caught_up()
    caught_up._next_look = 0
    assert caught_up() == has_caught_up
