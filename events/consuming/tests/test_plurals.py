"""Messages of commands use singular and plural correctly."""

import pytest
from django.core.management import CommandError, call_command
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings

from conftest import Topics
from events.consuming.dead_letter_limit import TooManyDeadLetters
from events.consuming.dead_letters import record_dead_letter
from events.consuming.replay import describe
from events.database import require_database
from events.models import DeadLetter
from events.troubles import Poison
from testkit.factories import OutboxEventFactory, kafka_record

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 event could not be sent. 1 is"), (2, "2 events could not be sent. 2 are")]
)
def test_events_that_wait(settings: Settings, count: int, said: str) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    OutboxEventFactory.create_batch(count)
    with pytest.raises(CommandError, match=rf"^{said} pending: "):
        call_command("relay_outbox", once=True)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, r"1 event could not be sent\. 1 was parked, because it can"),
        (2, r"2 events could not be sent\. 2 were parked, because they can"),
    ],
)
def test_events_that_are_parked(topics: Topics, count: int, said: str) -> None:
    OutboxEventFactory.create_batch(count, topic=topics.order_events, value=b"x" * (2 * 1024 * 1024 + 1))
    with pytest.raises(CommandError, match=rf"^{said} never be sent: admin shows the reason$"):
        call_command("relay_outbox", once=True)


@pytest.mark.parametrize(("count", "said"), [(0, "0 times"), (1, "1 time"), (2, "2 times")])
def test_replays_of_a_letter(count: int, said: str) -> None:
    record_dead_letter(record=kafka_record(b"garbage"), error=Poison("no event"), group="g")
    DeadLetter.objects.update(replay_count=count)
    assert f", replayed {said}, group g" in describe(DeadLetter.objects.get())


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, r"1 migration \(\S+\)"),
        (3, r"3 migrations \(\S+, \S+, \S+\)"),
        (4, r"4 migrations \(\S+, \S+, \S+ \.\.\.\)"),
    ],
)
def test_missing_migrations(count: int, said: str) -> None:
    applied = MigrationRecorder.Migration.objects.filter(app="events").order_by("-name")
    MigrationRecorder.Migration.objects.filter(pk__in=[one.pk for one in applied[:count]]).delete()
    with pytest.raises(CommandError, match=rf"^The database lacks {said}: run `manage\.py migrate`\.$"):
        require_database()


@pytest.mark.parametrize(("count", "said"), [(1, "1 dead letter in a row"), (2, "2 dead letters in a row")])
def test_dead_letters_in_a_row(count: int, said: str) -> None:
    assert str(TooManyDeadLetters(group="g", count=count)).startswith(f"Stopped after {said} of group g: ")
