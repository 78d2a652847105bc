"""The patches of kafka-python that no other test covers, and the refusal of an untested version."""

import os
import subprocess
import sys

import pytest

from conftest import Topics
from events.kafka import Producer
from events.kafka.patches import TESTED_VERSION
from events.kafka.patches.network import bytes_before_end
from testkit.factories import OutboxEventFactory
from testkit.processes import CHECKOUT
from testkit.servers import Broker
from testkit.waiting import wait_until

OTHER_VERSION = """
import runpy, sys
import kafka.version
kafka.version.__version__ = "3.1.0"
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""Program that runs the module in its first argument, as if another version of kafka-python was installed."""
REFUSAL = (
    "Cannot start: kafka-python 3.1.0 is installed, but the patches in events/kafka/patches are tested only with "
    f"{TESTED_VERSION}. Install kafka-python=={TESTED_VERSION}, as in requirements.txt.\n"
)


def test_bytes_before_the_end_of_a_connection_are_kept() -> None:
    end = ConnectionError("socket disconnected")
    receive = bytes_before_end(lambda: (b"wrong password", end))
    assert receive() == (b"wrong password", None)
    assert receive() == (b"", end)


def test_an_end_without_bytes_is_reported_at_once() -> None:
    end = ConnectionError("socket disconnected")
    assert bytes_before_end(lambda: (b"", end))() == (b"", end)


@pytest.mark.django_db
def test_closing_with_a_message_in_flight_ends_the_sender(topics: Topics, broker: Broker) -> None:
    producer = Producer()
    message = OutboxEventFactory.create(topic=topics.order_events).message
    producer.send_all([message])
    broker.go_down()
    try:
        producer._send(message)
        producer.close()
        wait_until(lambda: not producer._client._sender.is_alive())
    finally:
        broker.come_back()


@pytest.mark.parametrize(
    "command",
    [
        ("commerce.web_server", "--bind", "127.0.0.1:1025"),
        ("django", "consume_order_events"),
        ("django", "relay_outbox"),
        ("django", "check"),
    ],
)
def test_every_process_refuses_an_untested_version(command: tuple[str, ...]) -> None:
    refused = subprocess.run(
        [sys.executable, "-c", OTHER_VERSION, *command],
        cwd=CHECKOUT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "commerce.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.endswith(REFUSAL)
