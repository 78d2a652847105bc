"""The app of docs/consumers.md, followed word by word, handles each event once."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection

from conftest import Topics
from orders.events import encode
from testkit.factories import OrderEventFactory
from testkit.kafka_client import produce

CHECKOUT = Path(__file__).parent.parent.parent
PAGE = (CHECKOUT / "docs" / "consumers.md").read_text()
BLOCK = re.compile(r"`(loyalty/\w+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)
PROJECT = """
import os

from commerce.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "loyalty"]
ORDER_EVENTS_TOPIC = os.environ["TOPIC"]
NOTIFICATION_EVENTS_TOPIC = ORDER_EVENTS_TOPIC + "-notifications"
"""

Manage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the page's files and the product's settings with another app and other topics."""
    (tmp_path / "loyalty").mkdir()
    (tmp_path / "loyalty" / "__init__.py").touch()
    for name, code in BLOCK.findall(PAGE):
        (tmp_path / name).write_text(code)
    (tmp_path / "with_loyalty.py").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def environment(project: Path, topics: Topics, transactional_db: None) -> dict[str, str]:
    """Return the environment of processes on the test's database and topic."""
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    return os.environ | {
        "DATABASE_URL": url.geturl(),
        "DJANGO_DEBUG": "true",
        "DJANGO_SETTINGS_MODULE": "with_loyalty",
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(settings.KAFKA_BOOTSTRAP_SERVERS),
        "PYTHONPATH": f"{project}{os.pathsep}{CHECKOUT}",
        "TOPIC": topics.order_events,
    }


@pytest.fixture
def manage(environment: dict[str, str]) -> Iterator[Manage]:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    yield run
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS loyalty_account")
        cursor.execute("DELETE FROM django_migrations WHERE app = 'loyalty'")


def points(user_id: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT points FROM loyalty_account WHERE user_id = %s", [user_id])
        row = cursor.fetchone()
    return row[0] if row else 0


def succeed(finished: "subprocess.CompletedProcess[str]") -> str:
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_app_is_at_most_25_lines_of_python() -> None:
    code = [code for name, code in BLOCK.findall(PAGE) if not name.endswith("test_points.py")]
    assert len(code) == 2
    assert sum(len([line for line in one.splitlines() if line.strip()]) for one in code) <= 25


@pytest.mark.django_db(transaction=True)
def test_group_of_the_page_handles_each_event_once(manage: Manage, topics: Topics, user: User) -> None:
    succeed(manage("makemigrations", "loyalty"))
    succeed(manage("migrate", "loyalty"))
    assert re.search(
        rf"^loyalty +{topics.order_events} +ORDER_PAID$", succeed(manage("consume", "--list")), re.MULTILINE
    )
    paid = OrderEventFactory.build(event_type="ORDER_PAID", user_id=7, total_amount=25000)
    created = OrderEventFactory.build(event_type="ORDER_CREATED", user_id=7, total_amount=99000)
    for event in (created, paid, paid):
        produce(topics.order_events, encode(event), partition=0)
    succeed(manage("consume", "loyalty", "--until-caught-up"))
    assert points(7) == 25
    produce(topics.order_events, encode(paid), partition=1)
    succeed(manage("consume", "loyalty", "--until-caught-up"))
    assert points(7) == 25
    lag = json.loads(succeed(manage("consumer_lag", "--json")))
    assert {row["group"] for row in lag} == {"loyalty", settings.NOTIFICATION_CONSUMER_GROUP}
    assert sum(row["lag"] for row in lag if row["group"] == "loyalty" and row["lag"] is not None) == 0


def test_test_of_the_page_passes(project: Path, environment: dict[str, str]) -> None:
    (project / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = with_loyalty\n")
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
