"""In a project without the shop, `events` runs alone or with one participant, `payments` or `shipping`.

It then loads none of the shop's other modules.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import psycopg2
import pytest
from django.conf import settings

from testkit.participants.provider import provider_in_thread
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


PARTICIPANT = """
import sys
from decimal import Decimal
from uuid import uuid4

import django

django.setup()

from django.conf import settings
from django.core.management import call_command
from django.db import transaction

from events.models import OutboxEvent
from events.outbox import recording

{import_messages}

call_command("migrate", verbosity=0)
with transaction.atomic():
    recording.record({command})
call_command("relay_outbox", once=True)
call_command("consume", "{app}", until_caught_up=True)
call_command("work", "{app}", once=True)
call_command("relay_outbox", once=True)
reply = OutboxEvent.objects.get(topic=settings.PAYMENT_REPLIES_TOPIC)
assert (reply.event_type, bytes(reply.key), reply.published_at is None) == ("{reply}", b"7", False), reply
foreign = {{name.partition(".")[0] for name in sys.modules}} & {foreign}
assert not foreign, foreign
print("all of it")
"""
PARTICIPANTS = {
    "payments": PARTICIPANT.format(
        app="payments",
        import_messages="from payments.messages import charge_payment",
        command="charge_payment(command_id=uuid4(), reference=7, amount=Decimal('1.50'), payment_token='tok_ok', "
        "source='/x', sequence=1)",
        reply="PAYMENT_CHARGED",
        foreign={"commerce", "fulfilment", "notifications", "orders", "sales", "shipping"},
    ),
    "shipping": PARTICIPANT.format(
        app="shipping",
        import_messages="from shipping.messages import Item, book_shipment",
        command="book_shipment(command_id=uuid4(), reference=7, items=[Item(product_id=1, quantity=2)], source='/x', "
        "sequence=1)",
        reply="SHIPMENT_BOOKED",
        foreign={"commerce", "fulfilment", "notifications", "orders", "payments", "sales"},
    ),
}


@pytest.fixture
def own_database() -> Iterator[str]:
    name = f"foreign_{uuid4().hex[:8]}"
    with closing(psycopg2.connect(os.environ["DATABASE_URL"])) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        yield name
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def environment(own_database: str, broker: Broker, *suffixes: str) -> dict[str, str]:
    """Create a topic and one more for each suffix. Return the environment variables of a foreign project."""
    url = urlsplit(os.environ["DATABASE_URL"])
    given = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTEST_"))}
    topic = f"foreign-{uuid4().hex[:8]}"
    for suffix in ("", *suffixes):
        broker.create_topic(topic + suffix, partitions=PARTITIONS)
    return given | {
        "DJANGO_SETTINGS_MODULE": "tests.subscriptions.foreign.settings",
        "FOREIGN_DATABASE_URL": url._replace(path=f"/{own_database}").geturl(),
        "FOREIGN_DATABASE_HOST": parse_qs(url.query).get("host", [""])[0],
        "FOREIGN_TOPIC": topic,
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(settings.KAFKA_BOOTSTRAP_SERVERS),
        "KAFKA_ASSIGNMENT_DELAY_MS": str(settings.KAFKA_ASSIGNMENT_DELAY_MS),
        "FOREIGN_API_VERSION": ".".join(map(str, settings.KAFKA_API_VERSION or ())),
    }


def run(program: str, variables: dict[str, str]) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=90
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "all of it" in finished.stdout


def test_the_plumbing_runs_in_a_project_without_the_shop(own_database: str, broker: Broker) -> None:
    run(PROGRAM, environment(own_database, broker, "-dlt"))


@pytest.mark.parametrize("app", PARTICIPANTS)
def test_a_participant_runs_with_events_alone(app: str, own_database: str, broker: Broker, tmp_path: Path) -> None:
    variables = environment(own_database, broker, "-dlt", "-replies") | {
        "DJANGO_SETTINGS_MODULE": "tests.subscriptions.foreign.participant_settings",
        "FOREIGN_APP": app,
    }
    with provider_in_thread(tmp_path / "book.sqlite3") as provider:
        run(PARTICIPANTS[app], variables | {"FOREIGN_PROVIDER_URL": provider.url})
        service = {"payments": "payments", "shipping": "shipments"}[app]
        assert len(provider.book(service)) == 1
