"""The app of docs/consumers.md, followed word by word, handles each event once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection

from conftest import Topics
from orders.events import encode
from testkit.factories import OrderEventFactory
from testkit.kafka_client import produce
from tests.subscriptions.conftest import Handbook, Manage


@pytest.fixture
def handbook() -> Handbook:
    return Handbook(page="consumers.md", app="loyalty")


def points(user_id: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT points FROM loyalty_account WHERE user_id = %s", [user_id])
        row = cursor.fetchone()
    return row[0] if row else 0


def test_app_is_at_most_25_lines_of_python(handbook: Handbook) -> None:
    code = [code for name, code in handbook.files.items() if not name.endswith("test_points.py")]
    assert len(code) == 2
    assert sum(len([line for line in one.splitlines() if line.strip()]) for one in code) <= 25


@pytest.mark.django_db(transaction=True)
def test_group_of_the_page_handles_each_event_once(manage: Manage, topics: Topics, user: User) -> None:
    manage("makemigrations", "loyalty")
    manage("migrate", "loyalty")
    assert re.search(rf"^loyalty +{topics.order_events} +ORDER_PAID$", manage("consume", "--list"), re.MULTILINE)
    paid = OrderEventFactory.build(event_type="ORDER_PAID", user_id=7, total_amount=25000)
    created = OrderEventFactory.build(event_type="ORDER_CREATED", user_id=7, total_amount=99000)
    for event in (created, paid, paid):
        produce(topics.order_events, encode(event), partition=0)
    manage("consume", "loyalty", "--until-caught-up")
    assert points(7) == 25
    produce(topics.order_events, encode(paid), partition=1)
    manage("consume", "loyalty", "--until-caught-up")
    assert points(7) == 25
    lag = json.loads(manage("consumer_lag", "--json"))
    assert {row["group"] for row in lag} >= {"loyalty", settings.NOTIFICATION_CONSUMER_GROUP}
    assert sum(row["lag"] for row in lag if row["group"] == "loyalty" and row["lag"] is not None) == 0


def test_test_of_the_page_passes(project: Path, environment: dict[str, str]) -> None:
    (project / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = with_app\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(project),
        "loyalty/test_points.py",
    ]
    (project / "loyalty" / "migrations").mkdir()
    finished = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "1 passed" in finished.stdout
