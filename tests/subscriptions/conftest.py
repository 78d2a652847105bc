"""Fixtures that build the app of a tutorial in docs/, in a project of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from conftest import Topics

CHECKOUT = Path(__file__).parent.parent.parent
PROJECT = """
import os

from commerce.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "{app}"]
ORDER_EVENTS_TOPIC = os.environ["TOPIC"]
NOTIFICATION_EVENTS_TOPIC = ORDER_EVENTS_TOPIC + "-notifications"
WAREHOUSE_URL = os.environ.get("WAREHOUSE_URL")
"""

Manage = Callable[..., str]


class Handbook(NamedTuple):
    """A tutorial in docs/, and the app that its reader writes."""

    page: str
    app: str

    @property
    def files(self) -> dict[str, str]:
        """The code of each file of the app in the tutorial, by path."""
        text = (CHECKOUT / "docs" / self.page).read_text()
        named = re.compile(rf"`({self.app}/\w+\.py)`[^`]*?:\n\n```python\n(.*?)```|", re.DOTALL)
        return {name: code for name, code in named.findall(text) if name}


@pytest.fixture
def project(tmp_path: Path, handbook: Handbook) -> Path:
    """Return a folder with the files of the tutorial and a settings module.

    The module has the product's settings, with the tutorial's app and the test's topics.
    """
    (tmp_path / handbook.app).mkdir()
    (tmp_path / handbook.app / "__init__.py").touch()
    for name, code in handbook.files.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "with_app.py").write_text(PROJECT.format(app=handbook.app))
    return tmp_path


@pytest.fixture
def environment(project: Path, topics: Topics, transactional_db: None) -> dict[str, str]:
    """Return the environment of processes with the settings of `project`, on the test's database and topics."""
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    return os.environ | {
        "DATABASE_URL": url.geturl(),
        "DJANGO_DEBUG": "true",
        "DJANGO_SETTINGS_MODULE": "with_app",
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(settings.KAFKA_BOOTSTRAP_SERVERS),
        "PYTHONPATH": f"{project}{os.pathsep}{CHECKOUT}",
        "TOPIC": topics.order_events,
    }


@pytest.fixture
def manage(environment: dict[str, str], handbook: Handbook) -> Iterator[Manage]:
    """Return a function that runs a Django command, checks that it succeeds, and returns its output."""

    def run(*arguments: str, **variables: str) -> str:
        command = [sys.executable, "-m", "django", *arguments]
        finished = subprocess.run(
            command, env=environment | variables, capture_output=True, text=True, check=False, timeout=60
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    yield run
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE %s", [f"{handbook.app}\\_%"])
        for (table,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {table}")
        cursor.execute("DELETE FROM django_migrations WHERE app = %s", [handbook.app])
