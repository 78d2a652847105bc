"""Dead letters in the admin: replayed by who may, and every replay on record."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events import admin
from events.dead_letters import record_dead_letter
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from tests.factories import kafka_record

pytestmark = pytest.mark.django_db

LETTERS = "/admin/events/deadletter/"


@pytest.fixture
def letters() -> list[DeadLetter]:
    """Three, the first of them at the limit of its replays."""
    for offset in range(3):
        record = kafka_record(b"garbage", offset=offset, headers=[("ce_type", b"ORDER_PAID")])
        record_dead_letter(record=record, error=Poison("no event"), group="group")
    letters = list(DeadLetter.objects.order_by("pk"))
    DeadLetter.objects.filter(pk=letters[0].pk).update(replay_count=5)
    return letters


@pytest.fixture
def viewer(client: Client) -> Client:
    """Logged in as one of the staff who may look at dead letters."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_deadletter"))
    client.force_login(user)
    return client


def replay(client: Client, letters: list[DeadLetter]) -> list[str]:
    """What the admin says to it."""
    selected = {"action": "replay_selected", "_selected_action": [letter.pk for letter in letters]}
    response: Any = client.post(LETTERS, selected)
    assert response.status_code in (200, 302)
    return [str(message) for message in get_messages(response.wsgi_request)]


def replays() -> list[int | None]:
    return list(OutboxEvent.objects.filter(event_type="REPLAY").order_by("pk").values_list("dead_letter", flat=True))


def test_a_superuser_replays_the_selected_ones_and_is_told_of_the_others(
    admin_client: Client, letters: list[DeadLetter]
) -> None:
    first, second = replay(admin_client, letters[:2])
    assert first.startswith("Replayed 1.")
    assert second.startswith(f"Letter {letters[0].pk} (order-events[0]@0) is not replayed: it was replayed 5 times")
    assert replays() == [letters[1].pk]


def test_every_replay_is_on_record(admin_client: Client, admin_user: User, letters: list[DeadLetter]) -> None:
    replay(admin_client, letters)
    entries = LogEntry.objects.order_by("pk")
    assert [(entry.object_id, entry.user, entry.change_message) for entry in entries] == [
        (str(letter.pk), admin_user, "Replay 1.") for letter in letters[1:]
    ]


def test_many_refusals_are_summed_up(
    admin_client: Client, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch
) -> None:
    DeadLetter.objects.update(state="dismissed")
    monkeypatch.setattr(admin, "REFUSALS_NAMED", 1)
    first, second = replay(admin_client, letters)
    assert "it is dismissed already" in first
    assert second == "2 more are not replayed."


def test_whoever_may_only_look_cannot_replay(viewer: Client, letters: list[DeadLetter]) -> None:
    page = viewer.get(LETTERS)
    assert page.status_code == 200
    assert "replay_selected" not in page.content.decode()
    replay(viewer, letters)
    assert replays() == []


def test_the_permission_to_replay_suffices(viewer: Client, letters: list[DeadLetter]) -> None:
    User.objects.get().user_permissions.add(Permission.objects.get(codename="replay_deadletter"))
    assert "replay_selected" in viewer.get(LETTERS).content.decode()
    assert len(replay(viewer, letters[1:])) == 1
    assert replays() == [letters[1].pk, letters[2].pk]


def test_list_and_detail_show_type_and_number_of_replays(admin_client: Client, letters: list[DeadLetter]) -> None:
    DeadLetter.objects.update(replay_count=4711)
    for page in (LETTERS, f"{LETTERS}{letters[0].pk}/change/"):
        text = admin_client.get(page).content.decode()
        assert "ORDER_PAID" in text
        assert "4711" in text or "4,711" in text


@pytest.mark.parametrize("path", [LETTERS, "/admin/events/outboxevent/"])
def test_lists_read_no_values(admin_client: Client, letters: list[DeadLetter], path: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get(path).status_code == 200
    assert any('"created_at"' in query["sql"] for query in queries)
    assert not any('"value"' in query["sql"] for query in queries)


def test_a_replay_leads_to_its_letter(admin_client: Client, letters: list[DeadLetter]) -> None:
    replay(admin_client, letters[1:2])
    row = OutboxEvent.objects.get(event_type="REPLAY")
    text = admin_client.get(f"/admin/events/outboxevent/{row.pk}/change/").content.decode()
    assert f"{LETTERS}{letters[1].pk}/change/" in text
