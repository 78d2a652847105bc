"""`manage.py replay_dead_letters`: the letters that it replays, its output, and how a signal ends it."""

import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from conftest import Topics
from events.consuming.tests.test_replay import headers, new_letter, replays, unreadable
from events.management.commands import replay_dead_letters
from events.models import DeadLetter, OutboxEvent
from testkit.processes import ProductProcess
from testkit.waiting import wait_until


class FakeShutdown:
    """A stand-in for `Shutdown` that records waits and does not sleep.

    After more than `after` waits, the shutdown is requested.
    """

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.after = math.inf

    def requested(self) -> bool:
        return len(self.waits) > self.after

    def wait(self, seconds: float) -> bool:
        assert seconds <= threading.TIMEOUT_MAX
        self.waits.append(seconds)
        return self.requested()


@pytest.fixture
def shutdown(monkeypatch: pytest.MonkeyPatch) -> FakeShutdown:
    fake = FakeShutdown()
    monkeypatch.setattr(replay_dead_letters, "Shutdown", lambda: fake)
    return fake


Command = Callable[..., list[str]]


@pytest.fixture
def command(shutdown: FakeShutdown, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command and returns its lines on stdout, or on stderr with `errors`."""

    def run(*arguments: str, errors: bool = False) -> list[str]:
        call_command("replay_dead_letters", *arguments)
        printed = capsys.readouterr()
        return (printed.err if errors else printed.out).splitlines()

    return run


@pytest.mark.django_db
class TestCommand:
    def replayed(self) -> list[int]:
        """Return the ids of the replayed letters, in the order of their replays."""
        return [int(dict(headers(row))["dead-letter-id"] or 0) for row in replays()]

    def test_without_filters_it_replays_all_open_ones_oldest_first(self, command: Command) -> None:
        letters = [new_letter().pk for _ in range(4)]
        DeadLetter.objects.filter(pk=letters[1]).update(state="dismissed")
        # An UPDATE moves a row to the end of the table.
        DeadLetter.objects.filter(pk=letters[0]).update(error_message="x")
        assert command() == ["replayed 3"]
        assert self.replayed() == [letters[0], letters[2], letters[3]]

    def test_closed_letters_are_not_mentioned(self, command: Command) -> None:
        new_letter()
        DeadLetter.objects.update(state="dismissed")
        assert command(errors=True) == []

    def test_without_open_letters_it_replays_none(self, command: Command) -> None:
        assert command() == ["replayed 0"]

    def test_by_id(self, command: Command) -> None:
        letters = [new_letter().pk for _ in range(3)]
        assert command("--id", str(letters[2]), "--id", str(letters[0]), "--id", str(letters[0])) == ["replayed 2"]
        assert self.replayed() == [letters[0], letters[2]]

    @pytest.mark.parametrize("unknown", [4_000_000_000, 2**70])
    def test_nothing_is_replayed_if_one_id_is_unknown_or_not_open(self, command: Command, unknown: int) -> None:
        letters = [new_letter().pk for _ in range(2)]
        DeadLetter.objects.filter(pk=letters[0]).update(state="replayed")
        with pytest.raises(CommandError) as error:
            command("--id", str(unknown), "--id", str(letters[0]), "--id", str(letters[1]))
        assert f"there is no letter {unknown}; letter {letters[0]} is replayed already" in str(error.value)
        assert replays() == []

    def test_by_event_type(self, command: Command) -> None:
        wanted = new_letter(headers=[("ce_type", b"ORDER_PAID")])
        new_letter(headers=[("ce_type", b"ORDER_CREATED")])
        new_letter()
        assert command("--event-type", "ORDER_PAID") == ["replayed 1"]
        assert self.replayed() == [wanted.pk]

    def test_by_group(self, command: Command) -> None:
        new_letter()
        wanted = new_letter(group="audit", headers=[("ce_type", b"ORDER_PAID")])
        new_letter(group="audit")
        assert command("--group", "audit", "--event-type", "ORDER_PAID") == ["replayed 1"]
        assert self.replayed() == [wanted.pk]
        assert command("--group", "audit") == ["replayed 2"]
        assert command("--group", "unknown") == ["replayed 0"]

    def test_a_limit_counts_what_is_replayed_and_not_what_is_refused(self, command: Command) -> None:
        new_letter(unreadable())
        letters = [new_letter().pk for _ in range(3)]
        assert command("--limit", "2") == ["replayed 2"]
        assert self.replayed() == letters[:2]

    def test_each_refusal_is_a_line_on_stderr_and_not_counted(self, command: Command) -> None:
        exhausted, unknown, good = new_letter(), new_letter(unreadable()), new_letter()
        DeadLetter.objects.filter(pk=exhausted.pk).update(replay_count=5)
        first, second = command(errors=True)
        assert f"Letter {exhausted.pk} ({exhausted}) is not replayed: it was replayed 5 times" in first
        assert f"Letter {unknown.pk} ({unknown}) is not replayed: its content is unknown" in second
        assert self.replayed() == [good.pk]

    @pytest.mark.parametrize("extra", [[], ["--rate", "0.001"]])
    def test_a_dry_run_lists_one_line_a_letter_and_changes_nothing(
        self, command: Command, shutdown: FakeShutdown, extra: list[str]
    ) -> None:
        paid = new_letter(headers=[("ce_type", b"ORDER_PAID"), ("ce_id", b"5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55")])
        DeadLetter.objects.update(error_message="on\ntwo lines", replay_count=2)
        bare = new_letter()
        new_letter(unreadable())
        before = [list(model.objects.order_by("pk").values_list()) for model in (DeadLetter, OutboxEvent)]
        first, second, last = command("--dry-run", *extra)
        assert re.match(rf"letter {paid.pk}: {re.escape(str(paid))}, ORDER_PAID, 5f0c7a3e-.*, replayed 2 times", first)
        assert second.startswith(f"letter {bare.pk}: {bare}, no event type, no event id")
        assert last == "would replay 2"
        assert [list(model.objects.order_by("pk").values_list()) for model in (DeadLetter, OutboxEvent)] == before
        assert not any(shutdown.waits)

    def test_a_rate_adds_waits_between_replays(self, command: Command, shutdown: FakeShutdown) -> None:
        letters = [new_letter(), new_letter(unreadable()), new_letter(), new_letter()]
        assert command("--rate", "0.1") == ["replayed 3"]
        # The fake waits take no time, so the wait before a refused letter is still due after it.
        assert [round(seconds) for seconds in shutdown.waits] == [0, 10, 10, 10]
        assert len(letters) == 4

    def test_without_a_rate_it_does_not_wait(self, command: Command, shutdown: FakeShutdown) -> None:
        for _ in range(3):
            new_letter()
        command()
        assert not any(shutdown.waits)

    def test_a_signal_ends_it_between_two_letters(self, command: Command, shutdown: FakeShutdown) -> None:
        letters = [new_letter().pk for _ in range(4)]
        shutdown.after = 2
        assert command() == ["replayed 2"]
        assert self.replayed() == letters[:2]

    @pytest.mark.parametrize(
        "arguments",
        [("--limit", "0"), ("--limit", "x"), ("--rate", "0"), ("--rate", "-1"), ("--rate", "nan"), ("--id", "0")],
    )
    def test_invalid_numbers_are_errors(self, command: Command, arguments: tuple[str, str]) -> None:
        new_letter()
        with pytest.raises(CommandError, match="invalid"):
            command(*arguments)
        assert replays() == []

    @pytest.mark.parametrize("rate", ["inf", "1e-320"])
    def test_every_positive_rate_is_accepted(self, command: Command, rate: str) -> None:
        new_letter()
        new_letter()
        assert command("--rate", rate) == ["replayed 2"]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ProductProcess]]:
    processes: list[ProductProcess] = []
    yield processes
    for process in processes:
        process.kill()


@pytest.mark.django_db(transaction=True)
def test_sigterm_ends_it_cleanly_and_it_reports_its_replays(
    topics: Topics, tmp_path: Path, started: list[ProductProcess]
) -> None:
    for _ in range(50):
        new_letter(topic=topics.order_events)
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    command = ("django", "replay_dead_letters", "--rate", "2")
    process = ProductProcess(*command, log=tmp_path / "log", env={"DATABASE_URL": database})
    started.append(process)
    # The fast path publishes the replays, because no relay runs in this test.
    wait_until(lambda: OutboxEvent.objects.filter(event_type="REPLAY", published_path="fast").count() >= 2)
    assert process.stop() == 0
    assert process.says(f"replayed {len(replays())}\n")
    assert 2 <= len(replays()) < 50
