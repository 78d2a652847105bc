"""A participant of a business process, such as payments: it carries out commands, and replies to each.

The commands come from a topic, and are leased work (`events.work`). Each command becomes one row, even if it is
repeated. The participant's app supplies the function that carries out a command. The reply is recorded in the
transaction that records the outcome.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from django.db import models, transaction
from django.utils.translation import gettext_lazy
from prometheus_client import Counter

from events.bulk import insert_rows, update_rows
from events.database_clock import database_now
from events.outbox import recording as outbox
from events.outbox.publisher import publish
from events.subscriptions import Subscription, Topic
from events.troubles import Poison
from events.wire import commands
from events.wire.commands import Command, CommandT
from events.wire.foreign_text import cut, storable
from events.wire.messages import Message
from events.wire.secret_members import masked
from events.work.calling import longest_call_s
from events.work.kinds import Act, Kind, Results
from events.work.models import LeasedWork
from events.work.outcomes import Done, Failed

MAX_COMMAND_BYTES = 128 * 1024
"""Largest command, in bytes of JSON. A batch of commands, or of replies to them, is one statement in memory."""
REASON_LIMIT_CHARS = 500
"""Largest number of characters of a reply's reason, which may come from a provider."""


class CommandWork(LeasedWork):
    """A command and the reply to it. A participant's model extends this class, and its Meta extends this Meta."""

    command_id = models.UUIDField(unique=True)
    command_type = models.CharField(max_length=100)
    reference = models.BigIntegerField(help_text=gettext_lazy("The sender's id of what the command is about."))
    value = models.BinaryField(help_text=gettext_lazy("The message of the command as it came first."))
    reply_type = models.CharField(
        max_length=100, db_default="", blank=True, help_text=gettext_lazy("The event type of the latest reply.")
    )
    reason = models.TextField(db_default="", blank=True)

    class Meta(LeasedWork.Meta):
        abstract = True
        indexes = [*LeasedWork.Meta.indexes, models.Index(fields=["reference"], name="%(class)s_of_reference")]

    def __str__(self) -> str:
        return f"{self.command_type} {self.command_id}"

    @property
    def may_be_known(self) -> bool:
        """Whether an earlier attempt may have reached the provider. If so, ask the provider before another attempt."""
        # An attempt that was killed leaves no error. An operator or a repeated command resets the number of attempts.
        return self.attempts > 1 or bool(self.last_error)


WorkT = TypeVar("WorkT", bound=CommandWork)


class Answer(NamedTuple):
    """The reply to a command. An action that ends with the outcome `Done` returns the reply as its `result`."""

    reply_type: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Participant(Generic[WorkT, CommandT]):
    name: str
    """Name of the app, which is also the name of its consumer group and of its kind of work."""
    model: type[WorkT]
    commands: Topic
    replies: Topic
    decode: Callable[[bytes | None], CommandT]
    """Return the command in a record's value. Raises Poison if the value is no command."""
    failed: Mapping[str, str]
    """Event type of the reply when the participant gives up, by the event type of the command."""
    gives_up_after: Callable[[], timedelta]
    """Return the time after which the participant gives a command up.

    The time starts when the command is recorded, and again when a repeat or an operator makes failed work pending.
    """

    def subscription(self) -> Subscription[CommandT]:
        """Return the subscription that records the commands as work."""
        return Subscription(group=self.name, topic=self.commands, decode=self.decode, handle=self.take)

    def kind(
        self,
        *,
        session: Callable[[], AbstractContextManager[Act[WorkT]]],
        outcomes_total: Counter,
        call_timeout_s: float,
        concurrency: int,
    ) -> Kind[WorkT]:
        """Return the kind of work that carries out the commands and records the replies.

        `call_timeout_s` is the timeout of one request to the provider, in seconds. An attempt may take two requests.
        `Kind` explains the other parameters.
        """
        # An attempt may ask the provider first.
        action_s = 2 * longest_call_s(call_timeout_s)
        return Kind(
            name=self.name,
            model=self.model,
            session=session,
            refuse=self.refuse,
            record=self.reply,
            outcomes_total=outcomes_total,
            action_s=action_s,
            lease_s=10 + action_s,
            first_pause_s=0.5,
            last_pause_s=10,
            concurrency=concurrency,
        )

    def take(self, new: Sequence[CommandT]) -> None:
        """Record each command as work. A command whose id is known is a repeat.

        A repeat makes failed work pending again, and records the reply to done work again. Pending work stays as it is.

        Raises:
            Poison: a command is too large, has the id of a different command, or undoes a command with another
                `reference`, such as one of another order.
        """
        first: dict[UUID, CommandT] = {}
        for command in new:
            self._refuse_conflict(first.setdefault(command.command_id, command), command)
        self._refuse_foreign_undoing(first)
        deadline_at = database_now() + self.gives_up_after()
        rows = [
            self.model(
                command_id=command.command_id,
                command_type=command.event_type,
                reference=command.reference,
                value=_encoded(command),
                deadline_at=deadline_at,
            )
            for command in first.values()
        ]
        if insert_rows(rows, ignore_conflicts=True) < len(rows):
            self._repeat(first)

    def _repeat(self, first: Mapping[UUID, CommandT]) -> None:
        """Treat the commands that were recorded before this call of `take` as repeats, as `take` describes.

        The others are new and pending, so nothing changes for them.
        """
        rows = list(self._locked(first))
        for row in rows:
            self._refuse_conflict(self.decode(bytes(row.value)), first[row.command_id])
        self._model_objects.filter(pk__in=[row.pk for row in rows]).try_again(within=self.gives_up_after())
        self._send([row for row in rows if row.state == LeasedWork.State.DONE])

    def refuse(self, claimed: Sequence[WorkT]) -> dict[int, str]:
        """Return, by primary key, why claimed commands must not be carried out: they undo one with another reference.

        `take` makes such a command a dead letter, but only if it knows the other command. That one may come later.
        """
        undone: dict[WorkT, UUID] = {}
        for work in claimed:
            # An attempt at a command that this release cannot decode fails by itself.
            with suppress(Poison):
                if undone_id := self.decode(bytes(work.value)).undone_id:
                    undone[work] = undone_id
        references = self._references(undone.values())
        return {
            work.pk: _undoes_foreign(work.command_id, undone_id)
            for work, undone_id in undone.items()
            if references.get(undone_id, work.reference) != work.reference
        }

    def reply(self, results: Results[WorkT]) -> None:
        """Record the replies to finished commands, in the transaction of their outcomes.

        The kind of work that `kind` returns has this method as its `record`.

        Secrets in commands that are done are hidden from now on. Customers read a reply's reason. So the text about a
        failure that is for operators is only in `last_error`.
        """
        finished: list[WorkT] = []
        for work, outcome in results:
            match outcome:
                case Done(Answer(reply_type, reason)):
                    pass
                case Failed(_, reason):
                    reply_type = self.failed[work.command_type]
                case _:
                    continue
            work.reply_type, work.reason = reply_type, cut(storable(reason), REASON_LIMIT_CHARS)
            # A failed command may be tried again, and needs its secrets.
            if self.commands.secret_members and isinstance(outcome, Done):
                work.value = masked(bytes(work.value), self.commands.secret_members)
            finished.append(work)
        update_rows(finished, ["reply_type", "reason", *(["value"] if self.commands.secret_members else [])])
        self._send(finished)

    @property
    def _model_objects(self) -> Any:
        return self.model._default_manager

    def _locked(self, command_ids: Collection[UUID]) -> Iterable[WorkT]:
        """Lock and return the rows of these commands, in a fixed order. The lock keeps workers from finishing them."""
        return self._model_objects.select_for_update().filter(command_id__in=command_ids).order_by("pk")

    def _refuse_conflict(self, first: CommandT, repeat: CommandT) -> None:
        same = msgspec.structs.replace(repeat, event_id=first.event_id, timestamp=first.timestamp)
        # The stored command may be done. Then its secrets are hidden, so compare it with the masked repeat, too.
        if first != same and first != self.decode(masked(commands.encode(same), self.commands.secret_members)):
            raise Poison(
                f"Command id {first.command_id} came first with another {first.event_type}: one command is forged, or "
                "a sender used one id for two commands"
            )

    def _refuse_foreign_undoing(self, new: Mapping[UUID, CommandT]) -> None:
        """Raise Poison if a command undoes one that has another reference, such as the charge of another order."""
        undone = [command.undone_id for command in new.values() if command.undone_id]
        references = {command_id: command.reference for command_id, command in new.items()} | self._references(undone)
        for command in new.values():
            if command.undone_id and references.get(command.undone_id, command.reference) != command.reference:
                raise Poison(_undoes_foreign(command.command_id, command.undone_id))

    def _references(self, command_ids: Collection[UUID]) -> dict[UUID, int]:
        """Return the reference of each of these commands that is recorded, by command id."""
        if not command_ids:
            return {}
        rows = self._model_objects.filter(command_id__in=command_ids)
        return dict(rows.values_list("command_id", "reference"))

    def _send(self, finished: Sequence[WorkT]) -> None:
        messages = [self._message(work) for work in finished]
        outbox.record_all(messages)
        if messages:
            transaction.on_commit(lambda: publish(messages), robust=True)

    def _message(self, work: WorkT) -> Message:
        reply = commands.reply_to(self.decode(bytes(work.value)), work.reply_type, reason=work.reason)
        return commands.message(reply, topic=self.replies.name, source=f"/{self.name}")


def _undoes_foreign(command_id: UUID, undone_id: UUID) -> str:
    return (
        f"Command {command_id} undoes command {undone_id}, which has another reference: one command is forged, or a "
        "sender confused two ids"
    )


def _encoded(command: Command) -> bytes:
    value = commands.encode(command)
    if len(value) > MAX_COMMAND_BYTES:
        raise Poison(f"Command {command.command_id} has {len(value)} bytes, more than {MAX_COMMAND_BYTES}")
    return value
