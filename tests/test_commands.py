"""Commands as an operator types them: what they print, and how they end."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from django.conf import settings

from testkit.processes import CHECKOUT, ProductProcess
from testkit.servers import Broker
from testkit.waiting import wait_until

Start = Callable[..., ProductProcess]
CLEAR_SCREEN = "\x1b[2J\x1b[H"


@pytest.fixture
def start(broker: Broker, site_database: None, tmp_path: Path) -> Iterator[Start]:
    started: list[ProductProcess] = []

    def start(*command: str, **env: str) -> ProductProcess:
        started.append(ProductProcess("django", *command, log=tmp_path / f"{len(started)}.log", env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()


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


def test_every_command_knows_the_topics_of_all_apps() -> None:
    """The test runs a new process, because its own process may have imported more modules than a command imports."""
    program = (
        "import django; django.setup(); from events.subscriptions import topics; print(*(t.name for t in topics()))"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    configured = {getattr(settings, name) for name in dir(settings) if name.endswith("_TOPIC")}
    assert set(found.stdout.split()) == configured


def test_relay_once_says_what_it_sent(start: Start) -> None:
    relay = start("relay_outbox", "--once")
    assert relay.process.wait(30) == 0
    assert re.fullmatch(r"sent \d+\n", relay.log.read_text())


def test_reconcile_says_what_is_missing(start: Start) -> None:
    # Other tests of this session let other groups commit offsets of the same topic, on other databases.
    reconcile = start("reconcile_events", "--group", settings.NOTIFICATION_CONSUMER_GROUP)
    assert reconcile.process.wait(30) == 0, reconcile.log.read_text()
    assert reconcile.log.read_text() == "missing 0, repaired 0\n"


@pytest.mark.parametrize(
    ("command", "exported"),
    [
        (
            "consume_order_events",
            (
                "outbox_pending 0.0",
                'events_consumed_total{event_type="ORDER_PAID",group="notification-consumer-group",outcome="dead"} 0.0',
            ),
        ),
        ("relay_outbox", ("outbox_pending 0.0",)),
        (
            "send_emails",
            ("email_pending 0.0", "email_oldest_pending_seconds 0.0", 'email_deliveries_total{outcome="failed"} 0.0'),
        ),
        ("watch_sales", ('sales_anomalies_total{rule="SILENCE"} 0.0',)),
    ],
)
def test_a_command_serves_metrics_and_touches_its_liveness_file(
    start: Start, tmp_path: Path, command: str, exported: tuple[str, ...]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = tmp_path / "alive"
    mail = {"EMAIL_URL": f"filemail://{tmp_path}/mail", "EMAIL_FROM": "shop@shop.example"}
    env = mail | {"SITE_URL": "https://shop.example"}
    process = start(command, "--metrics-port", str(port), "--liveness-file", str(file), **env)

    def metrics() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        except httpx.TransportError:
            return ""

    wait_until(lambda: all(line in metrics() for line in exported))
    assert "# TYPE events_published_total counter" in metrics()
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


def test_a_watched_lag_in_a_pipe_is_json_line_by_line(start: Start) -> None:
    watching = start("consumer_lag", "--watch", "--json")
    wait_until(lambda: watching.log.read_text().count("\n") > 1)
    assert watching.stop() == 0
    for line in watching.log.read_text().splitlines():
        assert {"group", "topic", "lag"} <= json.loads(line)[0].keys()


def watched_on_a_terminal(**env: str) -> str:
    """Return what `consumer_lag --watch` writes to a terminal until its third screen begins."""
    terminal, end_of_command = pty.openpty()
    command = [sys.executable, "-m", "django", "consumer_lag", "--watch"]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "commerce.settings", **env}
    with subprocess.Popen(command, cwd=CHECKOUT, env=env, stdout=end_of_command, stderr=end_of_command) as watching:
        os.close(end_of_command)
        written = ""
        while written.count(CLEAR_SCREEN) < 3:
            written += os.read(terminal, 4096).decode()
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(10) == 0
    os.close(terminal)
    return written


@pytest.mark.usefixtures("broker")
def test_a_watched_lag_on_a_terminal_has_clock_and_totals() -> None:
    for env, has_colour in (({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)):
        _, first, second, _ = watched_on_a_terminal(**env).split(CLEAR_SCREEN)
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, ", first)
        assert first[:19] < second[:19]
        assert "secondsBehind" in first
        assert re.search(r"notification-consumer-group: lag \d+", second)
        assert ("\x1b" in first) == has_colour


def test_a_terminal_shows_that_kafka_is_away() -> None:
    _, first, *_ = watched_on_a_terminal(NO_COLOR="", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1").split(CLEAR_SCREEN)
    assert re.match(r"\d{4}-.* UTC, ", first)
    assert "\x1b[31;1mKafka at 127.0.0.1:1 does not answer" in first
