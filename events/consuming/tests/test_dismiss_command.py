"""`manage.py dismiss_dead_letters`: the letters that it closes, and their log entries."""

from collections.abc import Callable

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from events.consuming.replay import describe
from events.consuming.tests.test_replay import new_letter
from events.consuming.tests.test_replay_command import FakeShutdown
from events.management.commands import dismiss_dead_letters
from events.models import DeadLetter, OutboxEvent
from testkit.factories import UserFactory

pytestmark = pytest.mark.django_db

Command = Callable[..., list[str]]


@pytest.fixture
def shutdown(monkeypatch: pytest.MonkeyPatch) -> FakeShutdown:
    fake = FakeShutdown()
    monkeypatch.setattr(dismiss_dead_letters, "Shutdown", lambda: fake)
    return fake


@pytest.fixture
def command(shutdown: FakeShutdown, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command and returns its lines on stdout."""

    def run(*arguments: str) -> list[str]:
        call_command("dismiss_dead_letters", *arguments)
        return capsys.readouterr().out.splitlines()

    return run


def dismissed() -> list[int]:
    return list(DeadLetter.objects.filter(state="dismissed").order_by("pk").values_list("pk", flat=True))


def test_it_closes_the_open_letters_of_one_group(command: Command) -> None:
    new_letter()
    audited = [new_letter(group="audit").pk for _ in range(3)]
    DeadLetter.objects.filter(pk=audited[0]).update(state="replayed")
    assert command("--group", "audit") == ["dismissed 2"]
    assert dismissed() == audited[1:]
    assert DeadLetter.objects.filter(state="dismissed", closed_at=None).count() == 0
    assert command("--group", "audit") == ["dismissed 0"]


def test_it_closes_more_than_one_request_of_admin_may(command: Command) -> None:
    letter = new_letter(group="audit")
    fields = {field.attname for field in DeadLetter._meta.local_fields} - {"id", "offset"}
    same = {name: getattr(letter, name) for name in fields}
    DeadLetter.objects.bulk_create(DeadLetter(**same, offset=offset) for offset in range(1, 1101))
    assert command("--group", "audit") == ["dismissed 1101"]
    assert LogEntry.objects.count() == 1101


def test_a_type_selects_the_dismissed_letters(command: Command) -> None:
    paid = new_letter(group="audit", headers=[("ce_type", b"ORDER_PAID")])
    new_letter(group="audit", headers=[("ce_type", b"ORDER_CREATED")])
    new_letter(headers=[("ce_type", b"ORDER_PAID")])
    assert command("--group", "audit", "--event-type", "ORDER_PAID") == ["dismissed 1"]
    assert dismissed() == [paid.pk]


def test_a_group_is_required(command: Command) -> None:
    new_letter()
    with pytest.raises(CommandError, match="--group"):
        command()
    assert dismissed() == []


def test_each_dismissal_is_on_record_as_one_of_admin(command: Command, admin_client: Client) -> None:
    by_command, by_admin = new_letter(group="audit"), new_letter()
    command("--group", "audit")
    admin_client.post(f"/admin/events/deadletter/{by_admin.pk}/dismiss/", {"confirmed": "yes"})
    first, second = LogEntry.objects.order_by("pk")
    assert (first.object_id, second.object_id) == (str(by_command.pk), str(by_admin.pk))
    for what in ("content_type", "action_flag", "change_message"):
        assert getattr(first, what) == getattr(second, what)
    assert (first.action_flag, first.user.username, second.user.username) == (CHANGE, "command line", "admin")


def test_the_commands_account_cannot_log_in_or_be_registered(command: Command, client: Client) -> None:
    new_letter(group="audit")
    command("--group", "audit")
    command("--group", "audit")
    account = User.objects.get(username="command line")
    assert (account.is_active, account.is_staff, account.has_usable_password()) == (False, False, False)
    answer = client.post(
        "/api/auth/register",
        {"username": "command  line", "password": "correct horse battery"},
        content_type="application/json",
    )
    assert answer.status_code == 400


def test_the_record_names_the_given_account(command: Command) -> None:
    operator = UserFactory.create(username="mina")
    new_letter(group="audit")
    assert command("--group", "audit", "--user", "mina") == ["dismissed 1"]
    assert LogEntry.objects.get().user == operator


def test_an_unknown_account_dismisses_nothing(command: Command) -> None:
    new_letter(group="audit")
    with pytest.raises(CommandError, match="There is no account mina"):
        command("--group", "audit", "--user", "mina")
    assert dismissed() == []


def test_a_dry_run_lists_the_letters_and_changes_nothing(command: Command) -> None:
    letters = [new_letter(group="audit") for _ in range(2)]
    new_letter()
    copies = OutboxEvent.objects.count()
    assert command("--group", "audit", "--dry-run") == [*map(describe, letters), "would dismiss 2"]
    assert ", group audit" in describe(letters[0])
    assert (dismissed(), LogEntry.objects.count(), OutboxEvent.objects.count()) == ([], 0, copies)
    assert not User.objects.exists()


def test_a_letter_that_was_closed_meanwhile_is_left_out(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = new_letter(group="audit"), new_letter(group="audit")
    DeadLetter.objects.filter(pk=first.pk).update(state="replayed")
    monkeypatch.setattr(dismiss_dead_letters, "open_letters", lambda **_: [first.pk, second.pk])
    assert command("--group", "audit") == ["dismissed 1"]
    assert LogEntry.objects.get().object_id == str(second.pk)


def test_a_signal_ends_it_after_the_letter_in_hand(
    command: Command, shutdown: FakeShutdown, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [new_letter(group="audit").pk for _ in range(3)]
    monkeypatch.setattr(shutdown, "requested", lambda: bool(dismissed()))
    assert command("--group", "audit") == ["dismissed 1"]
    assert dismissed() == letters[:1]
