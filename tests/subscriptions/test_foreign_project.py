"""The app `events` in a project without the shop: it publishes, consumes, and loads none of the shop's modules."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import psycopg2
import pytest
from django.conf import settings

from testkit.processes import CHECKOUT
from testkit.servers import PARTITIONS, Broker

PROGRAM = """
import sys
from datetime import UTC, datetime
from uuid import uuid4

import django

django.setup()

import msgspec
from django.core.management import call_command
from django.db import transaction

from events.consuming.handled import is_settled
from events.wire.messages import Message
from events.models import DeadLetter, InboxEntry, OutboxEvent
from events.outbox import recording
from tests.subscriptions.foreign.meters.events import METER_READINGS, MeterRead
from tests.subscriptions.foreign.meters.models import Meter

call_command("migrate", run_syncdb=True, verbosity=0)
event_id = uuid4()
for event_type, one in (("METER_READ", event_id), ("METER_MOVED", uuid4()), ("METER_BURNT", uuid4())):
    event = MeterRead(one, event_type, datetime.now(UTC), 7, 5)
    with transaction.atomic():
        recording.record(
            Message(one, event_type, METER_READINGS.name, b"7", msgspec.json.encode(event), b"\\x90", event.timestamp,
                    stream="meter-7", sequence=OutboxEvent.objects.filter(stream="meter-7").count() + 1)
        )
call_command("relay_outbox", once=True)
recording.send_again([event_id])
call_command("relay_outbox", once=True)
call_command("consume", "meters", until_caught_up=True)
call_command("consumer_lag", json=True)
assert Meter.objects.get().total == 5, Meter.objects.values_list()
assert InboxEntry.objects.get().event_id == event_id
assert DeadLetter.objects.get().event_type == "METER_BURNT"
settled = OutboxEvent.objects.filter(is_settled(), topic=METER_READINGS.name)
assert set(settled.values_list("event_type", flat=True)) == {"METER_READ", "METER_MOVED"}
foreign = {name.partition(".")[0] for name in sys.modules} & {"commerce", "orders", "notifications"}
assert not foreign, foreign
print("all of it")
"""


@pytest.fixture
def own_database() -> Iterator[str]:
    name = f"foreign_{uuid4().hex[:8]}"
    with closing(psycopg2.connect(os.environ["DATABASE_URL"])) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        yield name
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_plumbing_runs_in_a_project_without_the_shop(own_database: str, broker: Broker) -> None:
    url = urlsplit(os.environ["DATABASE_URL"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTEST_"))}
    topic = f"meters-{uuid4().hex[:8]}"
    for name in (topic, f"{topic}-dlt"):
        broker.create_topic(name, partitions=PARTITIONS)
    environment |= {
        "DJANGO_SETTINGS_MODULE": "tests.subscriptions.foreign.settings",
        "FOREIGN_DATABASE_URL": url._replace(path=f"/{own_database}").geturl(),
        "FOREIGN_DATABASE_HOST": parse_qs(url.query).get("host", [""])[0],
        "FOREIGN_TOPIC": topic,
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(settings.KAFKA_BOOTSTRAP_SERVERS),
        "KAFKA_ASSIGNMENT_DELAY_MS": str(settings.KAFKA_ASSIGNMENT_DELAY_MS),
        "FOREIGN_API_VERSION": ".".join(map(str, settings.KAFKA_API_VERSION or ())),
    }
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=90
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "all of it" in finished.stdout
