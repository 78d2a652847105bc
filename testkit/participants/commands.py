"""Tests that every participant passes: they follow a command from the topic to the provider, and back to the reply.

The test module of a participant inherits `ParticipantTests`, and says what its commands and replies are.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from uuid import UUID, uuid4

import pytest

from events.consuming.handled import is_known_to
from events.database_clock import database_now
from events.models import DeadLetter, OutboxEvent
from events.outbox import publisher
from events.subscriptions import Subscription, subscription, topics
from events.testing import deliver
from events.wire.commands import Reply, decode_reply
from events.wire.headers import unpack
from events.wire.messages import Message
from events.work.calling import REFUSED
from events.work.commands import CommandWork
from events.work.kinds import kind_named
from events.work.models import LeasedWork
from events.work.outcomes import ServiceUnavailable
from events.work.threads import worker_of
from events.work.worker import NOT_IN_TIME
from testkit.participants.clock import shift_clock
from testkit.participants.provider import provider_in_thread

State = LeasedWork.State
ANSWER_TIMEOUT_S = 0.5
"""Seconds that the participant waits for the provider's answer in these tests."""
SILENCE_S = 3.0
UNDONE_FAULTS = ("error", "close", "silence")
"""Faults after which the provider has not done what the request says."""
DONE_FAULTS = ("error-after", "close-after", "silence-after", "garbage-after")


class Replies(NamedTuple):
    """The event types of a participant's replies."""

    made: str
    refused: str
    make_failed: str
    undone: str
    undo_failed: str


class ParticipantTests:
    name: ClassVar[str]
    """Name of the app. Its consumer group and its kind of work have the same name."""
    service: ClassVar[str]
    """First segment of the path of each request to the provider: `payments` or `shipments`."""
    setting_prefix: ClassVar[str]
    replies: ClassVar[Replies]
    made: ClassVar[str]
    undone: ClassVar[str]
    """State at the provider after an undoing. `made` is the state before it."""

    def make(self, command_id: UUID, *, refused: bool = False) -> Message:
        """Return a command that makes a charge or booking; with `refused`, one that the provider refuses."""
        raise NotImplementedError

    def undo(self, command_id: UUID, *, made_id: UUID) -> Message:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _provider(self, settings: Any, tmp_path: Path) -> Iterator[None]:
        with provider_in_thread(tmp_path / "book.sqlite3", silence_s=SILENCE_S) as self.provider:
            setattr(settings, f"{self.setting_prefix}_PROVIDER_URL", self.provider.url)
            setattr(settings, f"{self.setting_prefix}_PROVIDER_TIMEOUT", ANSWER_TIMEOUT_S)
            yield

    # --- What the tests do -----------------------------------------------------------------------

    @property
    def rows(self) -> Any:
        return kind_named(self.name).model._default_manager

    def deliver(self, *commands: Message) -> list[DeadLetter]:
        return deliver(subscription(self.name), [command.value for command in commands])

    def work(self) -> None:
        """Try each pending command once, whether it is due or not.

        Raises ServiceUnavailable if the provider is not available. Some commands may then not be tried.
        """
        self.rows.filter(state=State.PENDING).update(due_at=database_now() - timedelta(seconds=1))
        worker = worker_of(kind_named(self.name), stopping=lambda: False, wait=lambda _: None)
        worker.sweep(due_until=database_now())

    def do(self, *commands: Message) -> list[Reply]:
        """Deliver the commands, try all pending ones as `work` does, and return all replies so far."""
        assert self.deliver(*commands) == []
        self.work()
        return self.sent()

    def sent(self) -> list[Reply]:
        rows = OutboxEvent.objects.filter(topic="fulfilment-replies").order_by("pk")
        return [decode_reply(bytes(row.value), event_types=self.replies) for row in rows]

    def types(self) -> list[str]:
        return [reply.event_type for reply in self.sent()]

    def row(self, command_id: UUID) -> CommandWork:
        row: CommandWork = self.rows.get(command_id=command_id)
        return row

    def history(self, command_id: UUID) -> Sequence[str]:
        """Return the states that the provider has recorded under the idempotency key `command_id`, oldest first."""
        entry = self.provider.book(self.service).get(str(command_id))
        return entry["history"] if entry else []

    # --- Making and undoing ----------------------------------------------------------------------

    @pytest.mark.django_db
    def test_a_command_is_done_once_and_answered(self) -> None:
        made_id = uuid4()
        (reply,) = self.do(self.make(made_id))
        assert (reply.event_type, reply.command_id, reply.reference, reply.reason) == (
            self.replies.made,
            made_id,
            7,
            "",
        )
        assert self.history(made_id) == [self.made]
        row = self.row(made_id)
        assert (row.state, row.reply_type, row.attempts) == (State.DONE, self.replies.made, 1)

    @pytest.mark.django_db
    def test_a_reply_is_a_message_about_its_reference(self) -> None:
        self.do(self.make(uuid4()))
        row = OutboxEvent.objects.get()
        headers = dict(unpack(row.headers))
        assert (bytes(row.key), row.stream, row.event_type) == (b"7", None, self.replies.made)
        assert (headers["ce_source"], headers["ce_subject"]) == (f"/{self.name}".encode(), b"7")

    @pytest.mark.django_db(transaction=True)
    def test_a_reply_is_published_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        published: list[Message] = []

        class Noting:
            def publish(self, messages: Sequence[Message]) -> None:
                published.extend(messages)

            def close(self) -> None:
                """Do nothing: there is no connection."""

        monkeypatch.setattr(publisher, "_current", Noting())
        command = self.make(uuid4())
        self.do(command, command)
        assert [message.event_type for message in published] == [self.replies.made]
        self.deliver(self.make(self.rows.get().command_id))
        assert [message.event_type for message in published] == [self.replies.made] * 2

    @pytest.mark.django_db
    def test_a_refusal_is_a_reply_with_its_reason(self) -> None:
        made_id = uuid4()
        (reply,) = self.do(self.make(made_id, refused=True))
        assert reply.event_type == self.replies.refused
        assert reply.reason
        assert self.row(made_id).state == State.DONE

    @pytest.mark.django_db
    def test_what_was_made_is_undone_once(self) -> None:
        made_id, undo_id = uuid4(), uuid4()
        self.do(self.make(made_id))
        replies = self.do(self.undo(undo_id, made_id=made_id))
        assert [(reply.event_type, reply.command_id) for reply in replies] == [
            (self.replies.made, made_id),
            (self.replies.undone, undo_id),
        ]
        self.do(self.undo(uuid4(), made_id=made_id))
        assert self.types()[2:] == [self.replies.undone]
        assert self.history(made_id) == [self.made, self.undone]

    @pytest.mark.django_db
    def test_nothing_is_made_after_its_undoing(self) -> None:
        """The undoing command is done first, for example because the other command's worker was frozen."""
        made_id = uuid4()
        self.do(self.undo(uuid4(), made_id=made_id))
        self.do(self.make(made_id))
        assert self.types() == [self.replies.undone, self.replies.refused]
        assert self.history(made_id) == ["voided"]

    @pytest.mark.django_db
    def test_what_was_refused_can_be_undone(self) -> None:
        made_id = uuid4()
        self.do(self.make(made_id, refused=True))
        self.do(self.undo(uuid4(), made_id=made_id))
        assert self.types() == [self.replies.refused, self.replies.undone]
        assert self.made not in self.history(made_id)

    @pytest.mark.django_db
    def test_a_reply_is_settled_once_its_group_has_handled_it(self) -> None:
        """A reply that a group has handled settles an outbox row only if it has the row's event id and reference.

        The row has no stream, so its reference is taken from its key.
        """
        reader = Subscription(
            group="reader",
            topic=next(topic for topic in topics() if topic.setting == f"{self.setting_prefix}_REPLIES_TOPIC"),
            decode=partial(decode_reply, event_types=self.replies),
            handle=lambda replies: replies,
        )
        self.do(self.make(uuid4()), self.make(uuid4()))
        handled, unhandled = OutboxEvent.objects.order_by("pk")
        deliver(reader, [bytes(handled.value)])
        assert list(OutboxEvent.objects.filter(is_known_to(reader))) == [handled]
        other_reference = bytes(unhandled.value).replace(b'"reference":7', b'"reference":8')
        deliver(reader, [other_reference])
        assert not OutboxEvent.objects.filter(is_known_to(reader), pk=unhandled.pk).exists()

    # --- Repeated commands -----------------------------------------------------------------------

    @pytest.mark.django_db
    def test_a_repeat_of_finished_work_gets_its_reply_again(self) -> None:
        made_id = uuid4()
        self.do(self.make(made_id))
        first, again = self.do(self.make(made_id))
        assert first.event_id != again.event_id
        assert (first.event_type, first.command_id) == (again.event_type, again.command_id)
        assert self.row(made_id).attempts == 1

    @pytest.mark.django_db
    def test_a_repeat_of_pending_work_changes_nothing(self) -> None:
        made_id = uuid4()
        self.deliver(self.make(made_id), self.make(made_id))
        self.deliver(self.make(made_id))
        self.work()
        assert self.types() == [self.replies.made]

    @pytest.mark.django_db
    def test_the_same_message_twice_is_one_command(self) -> None:
        command = self.make(uuid4())
        self.do(command, command)
        self.do(command)
        assert self.types() == [self.replies.made]

    @pytest.mark.django_db
    def test_a_repeat_of_failed_work_is_tried_again(self) -> None:
        made_id = uuid4()
        self.deliver(self.make(made_id))
        self.rows.update(deadline_at=database_now())
        self.work()
        self.do(self.make(made_id))
        assert self.types() == [self.replies.make_failed, self.replies.made]
        assert self.row(made_id).deadline_at > database_now()

    @pytest.mark.django_db
    @pytest.mark.parametrize("hours", [-2, 2])
    def test_a_wrong_clock_moves_no_deadline(self, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
        shift_clock(monkeypatch, timedelta(hours=hours))
        self.do(self.make(uuid4()))
        assert self.types() == [self.replies.made]
        row = self.rows.get()
        assert timedelta(0) < row.deadline_at - row.created_at < timedelta(hours=1)

    @pytest.mark.django_db
    @pytest.mark.parametrize("at_once", [True, False])
    def test_a_command_id_for_two_commands_is_poison(self, at_once: bool) -> None:
        made_id, other_id = uuid4(), uuid4()
        commands = [self.make(made_id), self.undo(made_id, made_id=other_id), self.make(other_id)]
        batches = [commands] if at_once else [[command] for command in commands]
        letters = [letter for batch in batches for letter in self.deliver(*batch)]
        assert [letter.error_class.rpartition(".")[2] for letter in letters] == ["Poison"]
        self.work()
        assert self.types() == [self.replies.made] * 2

    @pytest.mark.django_db
    @pytest.mark.parametrize("at_once", [True, False])
    def test_an_undoing_under_another_reference_is_poison(self, at_once: bool) -> None:
        made_id, forged_id = uuid4(), uuid4()
        forged = json.loads(self.undo(forged_id, made_id=made_id).value) | {"reference": 8}
        values = [self.make(made_id).value, json.dumps(forged).encode()]
        batches = [values] if at_once else [[value] for value in values]
        letters = [letter for batch in batches for letter in deliver(subscription(self.name), batch)]
        assert [letter.error_class.rpartition(".")[2] for letter in letters] == ["Poison"]
        self.work()
        assert self.history(made_id) == [self.made]
        assert not self.rows.filter(command_id=forged_id).exists()
        self.do(self.undo(uuid4(), made_id=made_id))
        assert self.types() == [self.replies.made, self.replies.undone]

    @pytest.mark.django_db
    @pytest.mark.parametrize("earlier_attempts", [0, 1])
    def test_a_foreign_undoing_that_comes_first_is_refused(self, earlier_attempts: int) -> None:
        made_id, forged_id = uuid4(), uuid4()
        forged = json.loads(self.undo(forged_id, made_id=made_id).value) | {"reference": 8}
        assert deliver(subscription(self.name), [json.dumps(forged).encode()]) == []
        for _ in range(earlier_attempts):
            self.provider.fail("error")
            self.work()
        self.deliver(self.make(made_id))
        self.work()
        assert sorted(self.types()) == sorted([self.replies.made, self.replies.undo_failed])
        assert self.history(made_id) == [self.made]
        row = self.row(forged_id)
        assert (row.state, row.reason) == (State.FAILED, "")
        assert "which has another reference" in row.last_error
        self.do(self.undo(uuid4(), made_id=made_id))
        assert self.history(made_id) == [self.made, self.undone]

    @pytest.mark.django_db
    def test_a_command_of_a_later_release_stops_no_other(self) -> None:
        later_id, made_id = uuid4(), uuid4()
        self.deliver(self.make(later_id), self.make(made_id))
        self.rows.filter(command_id=later_id).update(value=b'{"eventType": "LATER"}')
        self.work()
        assert self.types() == [self.replies.made]
        row = self.row(later_id)
        assert (row.state, row.last_error.startswith("Poison")) == (State.PENDING, True)

    # --- Unknown outcomes ------------------------------------------------------------------------

    @pytest.mark.django_db
    @pytest.mark.parametrize("fault", DONE_FAULTS)
    def test_an_unknown_outcome_is_asked_for(self, fault: str) -> None:
        made_id = uuid4()
        self.provider.fail(fault)
        assert self.do(self.make(made_id)) == []
        row = self.row(made_id)
        assert (row.state, bool(row.last_error)) == (State.PENDING, True)
        # A second POST would get this error.
        self.provider.fail("error", times=10)
        self.work()
        assert self.types() == [self.replies.made]
        assert self.history(made_id) == [self.made]

    @pytest.mark.django_db
    @pytest.mark.parametrize("fault", UNDONE_FAULTS)
    def test_what_the_provider_does_not_know_is_tried_again(self, fault: str) -> None:
        made_id = uuid4()
        self.provider.fail(fault)
        assert self.do(self.make(made_id)) == []
        self.work()
        assert self.types() == [self.replies.made]

    @pytest.mark.django_db
    def test_a_provider_that_forgets_does_nothing_twice(self) -> None:
        made_id = uuid4()
        self.provider.fail("silence-after")
        self.do(self.make(made_id))
        self.provider.fail("forget", of="GET")
        self.work()
        assert self.types() == [self.replies.made]
        assert self.history(made_id) == [self.made]

    @pytest.mark.django_db
    def test_a_question_without_an_answer_is_asked_again(self) -> None:
        made_id = uuid4()
        self.provider.fail("silence-after")
        self.do(self.make(made_id))
        self.provider.fail("error", of="GET")
        self.work()
        assert self.types() == []
        self.work()
        assert self.types() == [self.replies.made]

    @pytest.mark.django_db
    @pytest.mark.parametrize("fault", [*DONE_FAULTS, *UNDONE_FAULTS])
    def test_an_undoing_of_unknown_outcome_is_repeated(self, fault: str) -> None:
        made_id = uuid4()
        self.do(self.make(made_id))
        self.provider.fail(fault)
        self.do(self.undo(uuid4(), made_id=made_id))
        self.work()
        assert self.types() == [self.replies.made, self.replies.undone]
        assert self.history(made_id) == [self.made, self.undone]

    @pytest.mark.django_db
    def test_a_killed_attempt_is_asked_for(self) -> None:
        """A killed worker leaves no outcome, so the next attempt first asks the provider."""
        made_id = uuid4()
        self.provider.fail("silence-after")
        self.do(self.make(made_id))
        self.rows.update(last_error="", attempts=1)
        self.provider.fail("error", times=10)
        self.work()
        assert self.types() == [self.replies.made]

    # --- Failure ---------------------------------------------------------------------------------

    @pytest.mark.django_db
    @pytest.mark.parametrize("fault", ["unavailable", "silence-after"])
    def test_a_command_that_takes_too_long_is_given_up(self, fault: str) -> None:
        made_id = uuid4()
        self.provider.fail(fault)
        try:
            self.do(self.make(made_id))
        except ServiceUnavailable:
            assert fault == "unavailable"
        assert self.sent() == []
        self.rows.update(deadline_at=database_now())
        self.work()
        (reply,) = self.sent()
        assert (reply.event_type, reply.reason) == (self.replies.make_failed, NOT_IN_TIME)
        assert "POST /" in self.row(made_id).last_error
        self.do(self.make(made_id))
        assert self.types()[1:] == [self.replies.made]
        assert self.history(made_id) == [self.made]

    @pytest.mark.django_db
    @pytest.mark.parametrize("url", ["", "http://127.0.0.1:1"])
    def test_a_provider_that_is_away_is_waited_for(self, settings: Any, url: str) -> None:
        made_id = uuid4()
        self.deliver(self.make(made_id))
        setattr(settings, f"{self.setting_prefix}_PROVIDER_URL", url)
        with pytest.raises(ServiceUnavailable, match="PROVIDER_URL is not set" if not url else "cannot be reached"):
            self.work()
        setattr(settings, f"{self.setting_prefix}_PROVIDER_URL", self.provider.url)
        self.work()
        assert self.types() == [self.replies.made]

    @pytest.mark.django_db
    def test_a_body_that_the_provider_refuses_fails_at_once(self) -> None:
        made_id = uuid4()
        self.do(self.make(made_id))
        self.rows.update(
            state=State.PENDING, finished_at=None, attempts=0, value=self.make(made_id, refused=True).value
        )
        self.work()
        assert self.types() == [self.replies.made, self.replies.make_failed]
        row = self.row(made_id)
        assert (self.sent()[-1].reason, row.reason) == (REFUSED, REFUSED)
        assert "422" in row.last_error

    @pytest.mark.django_db
    @pytest.mark.parametrize("url", ["", "http://payments.internal.invalid:8080/v1"])
    def test_a_reply_has_no_address_and_no_setting(self, settings: Any, url: str) -> None:
        made_id = uuid4()
        self.deliver(self.make(made_id))
        setattr(settings, f"{self.setting_prefix}_PROVIDER_URL", url)
        with pytest.raises(ServiceUnavailable):
            self.work()
        self.rows.update(deadline_at=database_now())
        self.work()
        assert [reply.reason for reply in self.sent()] == [NOT_IN_TIME]
        assert (url or f"{self.setting_prefix}_PROVIDER_URL") in self.row(made_id).last_error
