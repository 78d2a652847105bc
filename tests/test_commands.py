"""Commands as an operator types them: their output and their ends."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from testkit.processes import ProductProcess
from testkit.servers import Broker
from testkit.waiting import wait_until

Start = Callable[..., ProductProcess]


@pytest.fixture
def start(broker: Broker, tmp_path: Path) -> Iterator[Start]:
    started: list[ProductProcess] = []

    def start(*command: str, **env: str) -> ProductProcess:
        started.append(ProductProcess("django", *command, log=tmp_path / f"{len(started)}.log", env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture(scope="module", autouse=True)
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> None:
    migrate = ProductProcess("django", "migrate", log=tmp_path_factory.mktemp("logs") / "migrate.log")
    assert migrate.process.wait(60) == 0, migrate.log.read_text()


def test_a_consumer_without_database_ends_with_one_clear_line(start: Start) -> None:
    consumer = start("consume_order_events", DATABASE_URL="postgresql://postgres@127.0.0.1:1/commerce")
    assert consumer.process.wait(10) == 1
    assert "The database does not answer" in consumer.log.read_text()
    assert "Traceback" not in consumer.log.read_text()


def test_a_consumer_of_a_small_topic_ends_with_one_clear_line(start: Start) -> None:
    consumer = start("consume_order_events", KAFKA_TOPIC_PARTITIONS="50")
    assert consumer.process.wait(10) == 1
    assert re.fullmatch(r"CommandError: Topic order-events has 3 partitions, .*\n", consumer.log.read_text())


def test_consumer_and_relay_wait_for_kafka_and_end_in_time(start: Start) -> None:
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    consumer = start("consume_order_events", **nowhere)
    relay = start("relay_outbox", **nowhere)
    wait_until(lambda: consumer.says("Waiting for Kafka: Kafka at 127.0.0.1:1 does not answer"))
    assert consumer.stop() == 0
    assert relay.stop() == 0


def test_a_consumer_can_end_when_it_has_caught_up(start: Start) -> None:
    consumer = start("consume_order_events", "--group", "once", "--until-caught-up")
    assert consumer.process.wait(30) == 0, consumer.log.read_text()


def test_relay_once_says_what_it_sent(start: Start) -> None:
    relay = start("relay_outbox", "--once")
    assert relay.process.wait(30) == 0
    assert re.fullmatch(r"sent \d+\n", relay.log.read_text())


def test_reconcile_says_what_is_missing(start: Start) -> None:
    reconcile = start("reconcile_events")
    assert reconcile.process.wait(30) == 0, reconcile.log.read_text()
    assert reconcile.log.read_text() == "missing 0, repaired 0\n"


@pytest.mark.parametrize("command", ["consume_order_events", "relay_outbox"])
def test_a_command_serves_metrics_and_touches_its_liveness_file(start: Start, tmp_path: Path, command: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = tmp_path / "alive"
    process = start(command, "--metrics-port", str(port), "--liveness-file", str(file))

    def metrics() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        except httpx.TransportError:
            return ""

    wait_until(lambda: "outbox_pending 0.0" in metrics())
    assert "# TYPE events_published_total counter" in metrics()
    if command == "consume_order_events":
        expected = 'events_consumed_total{event_type="ORDER_PAID",outcome="dead"} 0.0'
        wait_until(lambda: expected in metrics())
    touched = file.stat().st_mtime
    wait_until(lambda: file.stat().st_mtime > touched)

    second = start(command, "--metrics-port", str(port))
    assert second.process.wait(10) == 1
    assert second.log.read_text().splitlines()[-1].startswith(f"CommandError: Port {port} is taken")
    assert process.stop() == 0


def test_an_unwritable_liveness_file_is_one_clear_line(start: Start, tmp_path: Path) -> None:
    relay = start("relay_outbox", "--liveness-file", str(tmp_path / "nowhere" / "alive"))
    assert relay.process.wait(10) == 1
    assert "cannot be written: No such file or directory" in relay.log.read_text()


def test_a_watched_lag_is_shown_anew_and_survives_an_outage(start: Start) -> None:
    watching = start("consumer_lag", "--watch")
    wait_until(lambda: watching.log.read_text().count("secondsBehind") > 1)
    assert "\x1b" not in watching.log.read_text()
    assert watching.stop() == 0
    nowhere = start("consumer_lag", "--watch", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    wait_until(lambda: nowhere.log.read_text().count("does not answer") > 1)
    assert nowhere.stop() == 0
