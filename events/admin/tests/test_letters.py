"""Admin's list of dead letters shows the open ones by default, and puts them first if all are shown."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events.consuming.dead_letters import record_dead_letter
from events.models import DeadLetter
from events.troubles import Poison
from events.wire.timestamps import now
from testkit.factories import kafka_record

pytestmark = pytest.mark.django_db

LETTERS = "/admin/events/deadletter/"


@pytest.fixture
def letters() -> list[DeadLetter]:
    """Four dead letters, oldest first: an open, a replayed, a dismissed and another replayed one."""
    for offset in range(4):
        record_dead_letter(record=kafka_record(b"garbage", offset=offset), error=Poison("no event"), group="group")
    letters = list(DeadLetter.objects.order_by("pk"))
    for letter, state in zip(letters[1:], ("replayed", "dismissed", "replayed"), strict=True):
        DeadLetter.objects.filter(pk=letter.pk).update(state=state, closed_at=now())
    return letters


def listed(client: Client, query: str) -> list[DeadLetter]:
    return list(client.get(LETTERS + query).context["cl"].result_list)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", [0]),
        ("?state__exact=open", [0]),
        ("?state__exact=replayed", [3, 1]),
        ("?state__exact=dismissed", [2]),
        ("?state__exact=all", [0, 3, 2, 1]),
        ("?state__exact=all&group=group", [0, 3, 2, 1]),
        ("?group=group", [0]),
        ("?state__exact=unknown", []),
    ],
)
def test_open_letters_come_first_and_by_default(
    admin_client: Client, letters: list[DeadLetter], query: str, shown: list[int]
) -> None:
    assert listed(admin_client, query) == [letters[index] for index in shown]


@pytest.mark.parametrize(("query", "chosen"), [("", "Open"), ("?state__exact=all", "All"), ("?q=1", "All")])
def test_the_filter_shows_what_is_chosen(
    admin_client: Client, letters: list[DeadLetter], query: str, chosen: str
) -> None:
    page = admin_client.get(LETTERS + query).context["cl"]
    (by_state,) = (one for one in page.filter_specs if one.field_path == "state")
    choices = list(by_state.choices(page))
    assert [choice["display"] for choice in choices] == ["Open", "Replayed", "Dismissed", "All"]
    assert [choice["display"] for choice in choices if choice["selected"]] == [chosen]


@pytest.mark.parametrize("index", range(4))
def test_a_search_finds_letters_of_every_state(admin_client: Client, letters: list[DeadLetter], index: int) -> None:
    assert listed(admin_client, f"?q={letters[index].pk}") == [letters[index]]


def test_an_action_on_the_whole_list_takes_open_letters(admin_client: Client, letters: list[DeadLetter]) -> None:
    every = {"action": "dismiss_selected", "select_across": "1", "_selected_action": [letters[0].pk]}
    question = admin_client.post(LETTERS, every).content.decode()
    assert str(letters[0]) in question
    assert str(letters[1]) not in question


@pytest.mark.parametrize("query", ["", "?state__exact=open", "?state__exact=all"])
def test_a_selected_letter_that_was_closed_meanwhile_is_told(
    admin_client: Client, letters: list[DeadLetter], query: str
) -> None:
    selected = {"action": "dismiss_selected", "_selected_action": [letters[2].pk], "confirmed": "yes"}
    page = admin_client.post(LETTERS + query, selected, follow=True).content.decode()
    assert f"1 is left as it is: dismissed already ({letters[2]})." in page


@pytest.mark.parametrize(
    ("query", "index"), [("", "dead_letter_state"), ("?state__exact=all", "dead_letter_open_first")]
)
def test_the_list_uses_an_index(admin_client: Client, query: str, index: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO events_deadletter ("group", topic, partition, "offset", timestamp, value_hash, headers,
                event_type, is_readable, error_class, error_message, stacktrace, state, replay_count, created_at)
            SELECT 'group', 'topic', 0, number, 0, '', '', '', true, '', '', '',
                CASE WHEN number < 1000 THEN 'open' ELSE 'replayed' END, 0, now()
            FROM generate_series(1, 50000) AS number
            """
        )
        cursor.execute("ANALYZE events_deadletter")
    with CaptureQueriesContext(connection) as queries:
        assert {letter.state for letter in listed(admin_client, query)} == {"open"}
    (rows,) = (one["sql"] for one in queries if '"error_message"' in one["sql"] and "ORDER BY" in one["sql"])
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {rows}")
        plan = "\n".join(line for (line,) in cursor)
    assert f"using {index} on" in plan
    assert "Seq Scan" not in plan


def test_only_an_open_letter_is_open_for_a_time(admin_client: Client, letters: list[DeadLetter]) -> None:
    pages = [admin_client.get(f"{LETTERS}{letter.pk}/change/").content.decode() for letter in letters]
    assert ["Open for" in page for page in pages] == [True, False, False, False]
    text = admin_client.get(f"{LETTERS}?state__exact=all").content.decode()
    cells = [part.split(">", 1)[1].split("<", 1)[0] for part in text.split('class="field-age')[1:]]
    assert [cell.strip() for cell in cells[1:]] == ["-", "-", "-"]
    assert cells[0].strip().endswith(" s")


def test_the_list_has_no_link_that_shows_all_by_mistake(admin_client: Client, letters: list[DeadLetter]) -> None:
    assert "Show all" not in admin_client.get(LETTERS).content.decode()
