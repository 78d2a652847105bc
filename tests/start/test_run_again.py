"""`make run` on the data of earlier runs: it starts again, or says how to go on. `make reset` drops the data."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from commerce.devserver import embedded_kafka
from commerce.devserver.embedded_postgres import EmbeddedPostgres, data_home
from testkit.kafka_client import Outgoing, produce_all
from testkit.processes import free_port
from testkit.servers import Broker
from testkit.waiting import wait_until
from testkit.whole_run import Run, copy_checkout, environment

POISON_MESSAGES = 1_100
"""Number of poison messages: more than a group's limit of consecutive dead letters."""
CHANGE_ACCOUNTS = """
from django.contrib.auth.models import User
demo, admin = User.objects.get(username="demo"), User.objects.get(username="admin")
demo.is_active = False
demo.save()
admin.set_password("another password")
admin.save()
"""
RENAME_AND_DELETE = """
from django.contrib.auth.models import User
demo = User.objects.get(username="demo")
demo.username = "renamed"
demo.save()
User.objects.filter(username="admin").delete()
"""
CHANGE_ORDERS_BY_HAND = """
from decimal import Decimal
from events.models import OutboxEvent
from orders.models import Order
from orders.services import Line, place_order
first = Order.objects.earliest("pk")
paid, pending, copied, lost = [
    place_order(user_id=first.user_id, lines=[Line(1, 2, Decimal("100.00"))]).order for _ in range(4)
]
Order.objects.filter(pk=paid.pk).update(status="PAID")
Order.objects.filter(pk=pending.pk).update(last_sequence=3)
Order.objects.filter(pk=copied.pk).update(event_ids=first.event_ids)
OutboxEvent.objects.filter(stream__in=[one.stream for one in (paid, pending, copied, lost)]).delete()
print(*(one.pk for one in (paid, pending, copied, lost)))
"""
COUNT_NOTIFICATIONS = """
from notifications.models import Notification
print(Notification.objects.filter(order_id={order_id}).count())
"""
REACH_THE_LIMIT = """
from events.models import ConsumerGroup
ConsumerGroup.objects.update_or_create(
    name="notification-consumer-group", defaults={"consecutive_dead_letters": 1000}
)
"""
MIGRATE_BY_NEWER_CODE = """
from django.db.migrations.recorder import MigrationRecorder
from django.db import connection
MigrationRecorder(connection).record_applied("events", "9999_of_tomorrow")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    copy_checkout(tmp_path)
    yield tmp_path
    shutil.rmtree(data_home(tmp_path), ignore_errors=True)


@pytest.fixture
def run(checkout: Path) -> Iterator[Callable[..., Run]]:
    """Return a function that starts a run, and waits until it is READY or has ended."""
    started: list[Run] = []

    def start(**env: str) -> Run:
        started.append(Run(checkout, free_port(), **env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


def reset(checkout: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "commerce.devserver.reset"],
        cwd=checkout,
        env=environment() | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def log_in(site: str, name: str, password: str) -> int:
    body = {"username": name, "password": password}
    return httpx.post(f"{site}/api/auth/token", json=body, trust_env=False).status_code


def test_a_run_starts_again_after_poison_and_changed_accounts(
    checkout: Path, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(THROTTLE_TOKEN="11/h")
    assert first.says("READY"), first.log.read_text()
    assert "account       demo / demo-password\n" in first.log.read_text()
    assert {log_in(first.site, "demo", "wrong") for _ in range(10)} == {401}
    assert {log_in(first.site, "demo", "wrong") for _ in range(3)} == {429}
    assert log_in(first.site, "admin", "admin-password") == 429

    kafka = next(line for line in (checkout / "var" / "run.env").read_text().split() if "BOOTSTRAP" in line)
    monkeypatch.setenv(*kafka.split("="))
    produce_all("order-events", [Outgoing(b"poison %d" % number) for number in range(POISON_MESSAGES)])
    assert first.process.wait(120) == 1, "The run must end when its consumer stops at the limit of dead letters"
    assert first.says("Stopped after 1000 dead letters in a row")

    # The lockout of demo and the count of logins outlive the run. One request an hour is the strictest limit.
    second = run(THROTTLE_TOKEN="11/h", THROTTLE_USER="1/h")
    assert second.says("READY"), second.log.read_text()
    assert "demo is locked for up to 5 minutes after wrong passwords; to repair it, run " in second.log.read_text()
    second.manage("shell", "-c", CHANGE_ACCOUNTS)
    assert second.stop() == 0

    third = run()
    assert third.says("READY"), third.log.read_text()
    assert "demo is deactivated; to repair it, run " in third.log.read_text()
    assert "admin has a changed password; to repair it, run " in third.log.read_text()
    third.manage("create_demo_accounts", "--restore")
    assert log_in(third.site, "demo", "demo-password") == 200
    assert log_in(third.site, "admin", "admin-password") == 200
    third.manage("shell", "-c", RENAME_AND_DELETE)
    changed = third.manage("shell", "-v", "0", "-c", CHANGE_ORDERS_BY_HAND)
    assert third.stop() == 0

    fourth = run()
    assert fourth.says("READY"), fourth.log.read_text()
    assert log_in(fourth.site, "demo", "demo-password") == 200
    *strange, lost = map(int, changed.split())
    for order_id in strange:
        (line,) = re.findall(rf"^== .*\b[Oo]rder {order_id}\b.*$", fourth.log.read_text(), re.MULTILINE)
        assert "not repaired" in line
    wait_until(lambda: "1" in fourth.manage("shell", "-v", "0", "-c", COUNT_NOTIFICATIONS.format(order_id=lost)))
    fourth.manage("shell", "-c", MIGRATE_BY_NEWER_CODE)
    assert fourth.stop() == 0

    assert says_how_to_go_on(run(), "does not know events.9999_of_tomorrow")


def test_a_run_on_an_external_kafka_keeps_its_dead_letter_count(run: Callable[..., Run], broker: Broker) -> None:
    """A run resets the count of consecutive dead letters only if it uses its own broker, which starts empty."""
    options = {} if broker.creates_topics else embedded_kafka.SETTINGS
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, **options}
    first = run(**kafka)
    assert first.says("READY"), first.log.read_text()
    first.manage("shell", "-c", REACH_THE_LIMIT)
    assert first.stop() == 0
    again = run(**kafka)
    assert again.process.wait(10) == 1
    assert again.says("Stopped after 1000 dead letters in a row")
    assert not again.says("READY")


def says_how_to_go_on(run: Run, reason: str) -> bool:
    """Check that the run failed for this reason. Return whether its last line says how to go on."""
    said = run.log.read_text()
    assert run.process.wait(10) == 1, said
    assert "Traceback" not in said
    assert reason in said
    return said.splitlines()[-1].startswith("To go on: ") and "`make reset`" in said.splitlines()[-1]


def make_database(checkout: Path) -> Path:
    """Start and stop a PostgreSQL, and return the folder of its data."""
    postgres = EmbeddedPostgres(data_home(checkout))
    postgres.start()
    postgres.stop()
    return data_home(checkout) / "postgres"


def of_another_major_version(checkout: Path) -> str:
    (make_database(checkout) / "PG_VERSION").write_text("17\n")
    return "initialized by PostgreSQL version 17"


def corrupt(checkout: Path) -> str:
    (make_database(checkout) / "global" / "pg_control").write_bytes(b"")
    return "PostgreSQL did not start"


def no_database_at_all(checkout: Path) -> str:
    make_database(checkout)
    shutil.rmtree(data_home(checkout) / "postgres")
    (data_home(checkout) / "postgres").write_text("a file")
    return "postgres"


def var_is_a_file(checkout: Path) -> str:
    (checkout / "var").write_text("a file")
    return "File exists"


def metrics_are_a_file(checkout: Path) -> str:
    (checkout / "var").mkdir()
    (checkout / "var" / "metrics").write_text("a file")
    return "File exists"


@pytest.mark.parametrize(
    "spoil",
    [of_another_major_version, corrupt, no_database_at_all, var_is_a_file, metrics_are_a_file],
)
def test_spoiled_data_end_in_a_line_that_says_how_to_go_on(
    checkout: Path, run: Callable[..., Run], spoil: Callable[[Path], str]
) -> None:
    reason = spoil(checkout)
    assert says_how_to_go_on(run(), reason)
    assert reset(checkout, YES="1").returncode == 0
    assert not (checkout / "var").exists()
    assert not data_home(checkout).exists()


def test_a_run_starts_anew_after_a_reset(checkout: Path, run: Callable[..., Run]) -> None:
    corrupt(checkout)
    assert reset(checkout, YES="1").returncode == 0
    again = run()
    assert again.says("READY"), again.log.read_text()


def test_a_full_disk_and_a_missing_right_have_their_own_way_on() -> None:
    from commerce.devserver.run.messages import recovery_hint

    for number, way in (
        (28, "make room on the disk"),
        (13, "let this user write there"),
        (30, "let this user write there"),
    ):
        assert way in recovery_hint(str(OSError(number, os.strerror(number), "/some/var")))


def test_reset_asks_first_and_refuses_while_a_run_is_up(checkout: Path, run: Callable[..., Run]) -> None:
    nothing = reset(checkout)
    assert (nothing.returncode, nothing.stdout) == (0, "There is nothing to drop.\n")
    running = run()
    assert running.says("READY"), running.log.read_text()
    refused = reset(checkout, YES="1")
    assert refused.returncode == 1
    assert refused.stderr == "Cannot reset: `make run` runs in this folder. Stop it first.\n"
    assert running.stop() == 0

    unasked = reset(checkout)
    assert unasked.returncode == 1
    assert unasked.stderr.endswith("there is no terminal to ask on. To agree: make reset YES=1\n")
    assert data_home(checkout).exists()
    agreed = reset(checkout, YES="1")
    assert agreed.returncode == 0
    assert f"Dropped {checkout / 'var'}\n" in agreed.stdout
    assert not data_home(checkout).exists()
    assert not (checkout / "var").exists()
    wait_until(lambda: not any(child.is_running() for child in running.children))
