"""Admin of dead letters and the outbox: actions need a permission and a confirmation, and each is logged."""

import html
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events.admin import actions as admin_actions
from events.admin import large_tables
from events.admin.dead_letters import DeadLetterAdmin
from events.consuming.dead_letters import dismiss, record_dead_letter
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter, OutboxEvent
from events.troubles import Poison
from events.wire.timestamps import now
from testkit.factories import OutboxEventFactory, kafka_record

pytestmark = pytest.mark.django_db

LETTERS = "/admin/events/deadletter/"
OUTBOX = "/admin/events/outboxevent/"


@pytest.fixture
def letters() -> list[DeadLetter]:
    """Three dead letters. The first one has been replayed as often as allowed."""
    for offset in range(3):
        record = kafka_record(b"garbage", offset=offset, headers=[("ce_type", b"ORDER_PAID")])
        record_dead_letter(record=record, error=Poison("no event"), group="group")
    letters = list(DeadLetter.objects.order_by("pk"))
    DeadLetter.objects.filter(pk=letters[0].pk).update(replay_count=5)
    return letters


@pytest.fixture
def viewer(client: Client) -> Client:
    """A client of a staff member who may only view dead letters."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_deadletter"))
    client.force_login(user)
    return client


def act(client: Client, action: str, rows: list[DeadLetter], *, confirmed: bool = True) -> list[str]:
    """Run `action` on `rows` in admin's list, and return the messages that admin shows."""
    posted = {"action": action, "_selected_action": [row.pk for row in rows]}
    response: Any = client.post(LETTERS, posted | ({"confirmed": "yes"} if confirmed else {}))
    assert response.status_code in (200, 302)
    return [str(message) for message in get_messages(response.wsgi_request)]


def replay(client: Client, letters: list[DeadLetter]) -> list[str]:
    return act(client, "replay_selected", letters)


def replays() -> list[int | None]:
    return list(OutboxEvent.objects.filter(event_type="REPLAY").order_by("pk").values_list("dead_letter", flat=True))


def test_a_superuser_replays_selected_letters_and_sees_refusals(
    admin_client: Client, letters: list[DeadLetter]
) -> None:
    first, second = replay(admin_client, letters[:2])
    assert first.startswith("Replayed 1 dead letter. ")
    assert second.startswith("1 is left as it is: replayed as often as allowed: let the producer send the event again")
    assert second.endswith("(order-events[0]@0).")
    assert replays() == [letters[1].pk]


def test_every_replay_is_on_record(admin_client: Client, admin_user: User, letters: list[DeadLetter]) -> None:
    replay(admin_client, letters)
    entries = LogEntry.objects.order_by("pk")
    assert [(entry.object_id, entry.user, entry.change_message) for entry in entries] == [
        (str(letter.pk), admin_user, "Replay 1.") for letter in letters[1:]
    ]


def test_many_refusals_are_one_message(
    admin_client: Client, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch
) -> None:
    DeadLetter.objects.update(state="dismissed")
    DeadLetter.objects.filter(pk=letters[2].pk).update(state="replayed")
    monkeypatch.setattr(admin_actions, "MAX_ROWS_NAMED", 1)
    assert replay(admin_client, letters) == [
        "3 are left as they are: dismissed already (order-events[0]@0 and 1 more), handled already (order-events[0]@2)."
    ]


def test_a_viewer_cannot_replay(viewer: Client, letters: list[DeadLetter]) -> None:
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


@pytest.mark.parametrize("size", [10, 100_000, 1_000_000])
def test_a_replays_page_does_not_load_its_letters_message(
    admin_client: Client, letters: list[DeadLetter], size: int
) -> None:
    letter = letters[1]
    replay(admin_client, [letter])
    DeadLetter.objects.filter(pk=letter.pk).update(
        value=b"x" * size, key=b"k" * size, event_id=uuid4(), error_message="m" * size, stacktrace="s" * size
    )
    row = OutboxEvent.objects.get(event_type="REPLAY")
    for page in (f"{OUTBOX}{row.pk}/change/", f"{OUTBOX}{row.pk}/send-again/", OUTBOX):
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(page, follow=True).status_code == 200
        of_letters = [query["sql"] for query in queries if '"events_deadletter"."id"' in query["sql"]]
        assert of_letters
        large = ("value", "key", "headers", "error_message", "stacktrace")
        assert not any(f'"events_deadletter"."{field}"' in sql for sql in of_letters for field in large)


def test_a_replay_leads_to_its_letter(admin_client: Client, letters: list[DeadLetter]) -> None:
    replay(admin_client, letters[1:2])
    row = OutboxEvent.objects.get(event_type="REPLAY")
    text = admin_client.get(f"/admin/events/outboxevent/{row.pk}/change/").content.decode()
    assert f"{LETTERS}{letters[1].pk}/change/" in text


# --- Confirmations, and other actions -----------------------------------------------------------


@pytest.mark.parametrize("action", ["replay_selected", "dismiss_selected"])
def test_an_action_waits_for_its_confirmation(admin_client: Client, letters: list[DeadLetter], action: str) -> None:
    assert act(admin_client, action, letters, confirmed=False) == []
    assert replays() == []
    assert not DeadLetter.objects.exclude(state="open").exists()


@pytest.mark.parametrize("action", ["replay", "dismiss"])
def test_a_link_alone_changes_nothing(admin_client: Client, letters: list[DeadLetter], action: str) -> None:
    page = f"{LETTERS}{letters[1].pk}/{action}/"
    assert "confirmed" in admin_client.get(page).content.decode()
    assert not LogEntry.objects.exists()
    assert admin_client.post(page, {"confirmed": "yes"}).status_code == 302
    assert LogEntry.objects.get().object_id == str(letters[1].pk)


def test_a_dismissed_letter_is_closed_once_and_on_record(
    admin_client: Client, admin_user: User, letters: list[DeadLetter]
) -> None:
    (said,) = act(admin_client, "dismiss_selected", letters[:1])
    assert said == "Dismissed 1 dead letter."
    *_, refused = act(admin_client, "dismiss_selected", letters[:1])
    assert refused == "1 is left as it is: dismissed already (order-events[0]@0)."
    letter = DeadLetter.objects.get(pk=letters[0].pk)
    assert letter.state == "dismissed"
    assert letter.closed_at
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user, entry.change_message) == (str(letter.pk), admin_user, "Dismissed.")


def test_the_permission_to_replay_does_not_allow_dismissing(viewer: Client, letters: list[DeadLetter]) -> None:
    User.objects.get().user_permissions.add(Permission.objects.get(codename="replay_deadletter"))
    act(viewer, "dismiss_selected", letters)
    for action in ("replay", "dismiss"):
        allowed = viewer.post(f"{LETTERS}{letters[1].pk}/{action}/", {"confirmed": "yes"}).status_code == 302
        assert allowed == (action == "replay")
    assert not DeadLetter.objects.filter(state="dismissed").exists()


def test_a_selection_above_the_limit_is_refused(
    admin_client: Client, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_actions, "MAX_ROWS_PER_REQUEST", 2)
    (said,) = act(admin_client, "replay_selected", letters)
    assert "at most 2 rows" in said
    assert replays() == []


@pytest.mark.parametrize(
    ("changes", "offered"),
    [
        ({}, {"replay", "dismiss"}),
        ({"replay_count": 5}, {"dismiss"}),
        ({"is_readable": False}, {"dismiss"}),
        ({"value": b"v" * (MAX_MESSAGE_BYTES + 1)}, {"dismiss"}),
        ({"state": "replayed"}, set()),
        ({"state": "dismissed"}, set()),
    ],
)
def test_a_letter_offers_what_can_be_done(
    admin_client: Client, letters: list[DeadLetter], changes: dict[str, Any], offered: set[str]
) -> None:
    letter = letters[1]
    DeadLetter.objects.filter(pk=letter.pk).update(**changes)
    text = admin_client.get(f"{LETTERS}{letter.pk}/change/").content.decode()
    actions = {action for action in ("replay", "dismiss") if f'href="{LETTERS}{letter.pk}/{action}/"' in text}
    assert actions == offered
    for action in {"replay", "dismiss"} - offered:
        page = f"{LETTERS}{letter.pk}/{action}/"
        assert "This cannot be done: " in admin_client.get(page).content.decode()
        admin_client.post(page, {"confirmed": "yes"})
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("is_pending", [True, False])
def test_a_message_is_offered_to_be_sent_again(admin_client: Client, is_pending: bool) -> None:
    row = OutboxEventFactory.create(parked_at=None if is_pending else now())
    text = admin_client.get(f"{OUTBOX}{row.pk}/change/").content.decode()
    assert (f'href="{OUTBOX}{row.pk}/send-again/"' in text) is not is_pending


def test_a_question_about_letters_says_what_will_happen(admin_client: Client, letters: list[DeadLetter]) -> None:
    DeadLetter.objects.filter(pk=letters[2].pk).update(state="dismissed")
    posted = {"action": "replay_selected", "_selected_action": [letter.pk for letter in letters]}
    with CaptureQueriesContext(connection) as queries:
        text = html.unescape(admin_client.post(LETTERS, posted).content.decode())
    assert "Send this message to its topic again? The letter is closed once a consumer has handled it." in text
    assert "1 can be replayed, 2 are skipped: replayed as often as allowed: " in text
    assert "(1), dismissed already (1)." in text
    reason = '<span translate="no">Poison: no event</span>'
    assert f"<li>order-events[0]@1 · group · ORDER_PAID · {reason} · Open</li>" in text
    assert not any('"value",' in query["sql"] or '"stacktrace"' in query["sql"] for query in queries)


# --- Groups -------------------------------------------------------------------------------------


@pytest.fixture
def audited(letters: list[DeadLetter]) -> list[DeadLetter]:
    """Record dead letters of a second group, `audit`, for the messages of `letters`. Return the new dead letters."""
    for letter in letters:
        record = kafka_record(b"garbage", offset=letter.offset)
        record_dead_letter(record=record, error=Poison("no event"), group="audit")
    return list(DeadLetter.objects.filter(group="audit"))


def test_the_filter_by_group_stands_first_and_offers_all_groups(
    admin_client: Client, audited: list[DeadLetter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_tables, "FILTER_SAMPLE_ROWS", 1)
    page = admin_client.get(LETTERS).context["cl"]
    assert page.filter_specs[0].field_path == "group"
    assert [choice["display"] for choice in page.filter_specs[0].choices(page)] == ["All", "audit", "group"]


def test_a_list_of_no_letters_offers_no_group(admin_client: Client) -> None:
    assert admin_client.get(LETTERS).status_code == 200


def test_a_group_is_shown_alone(admin_client: Client, audited: list[DeadLetter]) -> None:
    page = admin_client.get(LETTERS, {"group": "audit"}).context["cl"]
    assert set(page.result_list) == set(audited)
    assert page.list_display.index("group") < page.list_display.index("state_label")


def test_all_letters_of_a_filter_are_dismissed_at_once(
    admin_client: Client, admin_user: User, audited: list[DeadLetter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filter matches more letters than one page shows."""
    monkeypatch.setattr(DeadLetterAdmin, "list_per_page", 1)
    posted = {"action": "dismiss_selected", "select_across": "1", "_selected_action": [audited[0].pk]}
    filtered = f"{LETTERS}?group=audit&state__exact=open"
    question = admin_client.post(filtered, posted).content.decode()
    assert question.count("· audit") == 3
    assert "· group" not in question
    admin_client.post(filtered, posted | {"confirmed": "yes"})
    assert set(DeadLetter.objects.filter(state="open").values_list("group", flat=True)) == {"group"}
    recorded = LogEntry.objects.filter(user=admin_user, change_message="Dismissed.")
    assert {int(entry.object_id or 0) for entry in recorded} == {letter.pk for letter in audited}


def test_a_row_that_is_deleted_meanwhile_is_skipped(
    admin_client: Client, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = DeadLetter.objects.filter(pk=letters[0].pk)

    def prune_and_dismiss(*, letter_id: int) -> DeadLetter:
        gone.delete()
        return dismiss(letter_id=letter_id)

    monkeypatch.setattr("events.admin.dead_letters.dismiss", prune_and_dismiss)
    done, skipped = act(admin_client, "dismiss_selected", letters[:2])
    assert done == "Dismissed 1 dead letter."
    assert skipped == "1 is left as it is: deleted meanwhile (1)."
    assert DeadLetter.objects.get(state="dismissed") == letters[1]


@pytest.mark.parametrize("command", ["replay", "dismiss"])
def test_a_selection_above_the_limit_names_the_command(
    admin_client: Client, letters: list[DeadLetter], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(admin_actions, "MAX_ROWS_PER_REQUEST", 2)
    (said,) = act(admin_client, f"{command}_selected", letters)
    assert said.endswith(f"manage.py {command}_dead_letters --group NAME")


@pytest.mark.parametrize("state", ["published", "parked"])
def test_a_message_is_sent_again(admin_client: Client, state: str) -> None:
    published = {"published_at": now(), "published_path": "fast", "published_partition": 0, "published_offset": 1}
    row = OutboxEventFactory.create(
        **(published if state == "published" else {"parked_at": now(), "parked_reason": "too large"})
    )
    admin_client.post(f"{OUTBOX}{row.pk}/send-again/", {"confirmed": "yes"})
    assert OutboxEvent.objects.pending().get() == row
    assert LogEntry.objects.get().change_message == "Send again."


def test_a_pending_message_is_not_sent_again(admin_client: Client) -> None:
    row = OutboxEventFactory.create()
    response = admin_client.post(f"{OUTBOX}{row.pk}/send-again/", {"confirmed": "yes"}, follow=True)
    assert "1 is left as it is: pending already" in response.content.decode()
    assert not LogEntry.objects.exists()


# --- Pages of messages --------------------------------------------------------------------------


def shown(admin_client: Client, value: bytes | None) -> str:
    row = OutboxEventFactory.create(value=value)
    return html.unescape(admin_client.get(f"{OUTBOX}{row.pk}/change/").content.decode())


def test_json_is_shown_in_lines_with_its_own_spellings(admin_client: Client) -> None:
    assert '{\n  "amount": 1.50,\n  "amount": 2e1\n}' in shown(admin_client, b'{"amount":1.50,"amount":2e1}')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"\xff\x00", "0xff00"),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
        (b"[" * 5000, "[" * 5000),
        (None, "(null)"),
        (b"x" * 100_000, "(the first 65536 of 100000 bytes)"),
        (("xx" + "가" * 30_000).encode(), "가\n(the first 65536 of 90002 bytes)"),
        (("Größe" * 20_000).encode("latin-1"), "0x4772f6df65"),
    ],
)
def test_any_value_can_be_shown(admin_client: Client, value: bytes | None, text: str) -> None:
    assert text in shown(admin_client, value)


@pytest.mark.parametrize("page", [LETTERS, OUTBOX])
def test_of_a_large_message_the_database_sends_the_beginning(
    admin_client: Client, letters: list[DeadLetter], page: str
) -> None:
    large = {"key": b"k" * 3_000_000, "value": b"v" * 3_000_000, "headers": b"h" * 3_000_000}
    DeadLetter.objects.filter(pk=letters[0].pk).update(**large)
    row = letters[0] if page == LETTERS else OutboxEventFactory.create(**large)
    with CaptureQueriesContext(connection) as queries:
        text = admin_client.get(f"{page}{row.pk}/change/").content.decode()
    assert text.count("(the first 65536 of 3000000 bytes)") == 2
    assert "(3000000 bytes, too many to be shown)" in text
    assert not any(
        f'"{field}",' in query["sql"].replace(f'"{field}", 1, 65536)', "") for query in queries for field in large
    )


def test_no_value_becomes_part_of_the_page(admin_client: Client) -> None:
    row = OutboxEventFactory.create(value=b"<script>alert(1)</script>")
    assert "<script>alert(1)" not in admin_client.get(f"{OUTBOX}{row.pk}/change/").content.decode()


@pytest.mark.parametrize(("state", "found"), [("pending", 1), ("parked", 1), ("published", 1), ("", 3)])
def test_the_outbox_is_filtered_by_state(admin_client: Client, state: str, found: int) -> None:
    OutboxEventFactory.create()
    OutboxEventFactory.create(parked_at=now())
    OutboxEventFactory.create(published_at=now(), published_path="fast", published_partition=0, published_offset=1)
    assert admin_client.get(OUTBOX, {"state": state}).context["cl"].result_count == found


def test_letters_and_messages_are_found_by_their_event(admin_client: Client, letters: list[DeadLetter]) -> None:
    event_id = uuid4()
    DeadLetter.objects.filter(pk=letters[2].pk).update(event_id=event_id)
    row = OutboxEventFactory.create(event_id=event_id)
    assert list(admin_client.get(LETTERS, {"q": str(event_id)}).context["cl"].result_list) == [letters[2]]
    assert list(admin_client.get(OUTBOX, {"q": f" {event_id} "}).context["cl"].result_list) == [row]
    assert admin_client.get(LETTERS, {"q": "nothing"}).context["cl"].result_count == 0


# --- Long lists ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LETTERS, OUTBOX])
def test_a_longer_list_takes_no_more_queries(admin_client: Client, path: str) -> None:
    def queries(rows: int) -> int:
        for offset in range(rows):
            record = kafka_record(b"garbage", offset=offset)
            record_dead_letter(record=record, error=Poison("no event"), group=f"group-{rows}")
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(path).status_code == 200
        return len(captured)

    assert queries(2) == queries(20)


def test_a_long_list_is_estimated(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    OutboxEventFactory.create_batch(40)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE events_outboxevent")
    monkeypatch.setattr(large_tables, "EXACT_COUNT_LIMIT", 10)
    with CaptureQueriesContext(connection) as captured:
        assert admin_client.get(OUTBOX).context["cl"].result_count == 40
    counts = [query["sql"] for query in captured if "COUNT(" in query["sql"] and "outboxevent" in query["sql"]]
    assert all("LIMIT 11" in sql for sql in counts)
