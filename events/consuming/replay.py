"""Send the messages of dead letters to their topics again. A letter stays open until a consumer handles its replay."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import models, transaction
from django.template.defaultfilters import pluralize

from events.consuming.attempts import begin_attempt
from events.consuming.dead_letters import COUNT_HEADER, LETTER_ID_HEADER
from events.database import in_steps
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter, stored_bytes
from events.outbox import recording as outbox
from events.outbox.publisher import publish
from events.wire.headers import Header, pack, unpack
from events.wire.messages import Message
from events.wire.timestamps import now

REPLAY = "REPLAY"
"""Event type of an outbox row that is a replay. The row has a new event id, not the id of the event in its message."""
IDS_PER_QUERY = 1000
MESSAGE_FIELDS = ("key", "value", "headers")
"""Fields of a dead letter that hold its message, which may be large."""


class Obstacle(Enum):
    """A reason why a dead letter cannot be replayed."""

    CLOSED = auto()
    CONTENT_UNKNOWN = auto()
    TOO_LARGE = auto()
    LIMIT = auto()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of `replay` or `preview` for one dead letter."""

    letter: DeadLetter
    obstacle: Obstacle | None
    refusal: str
    """A sentence that says why the letter cannot be replayed, and what to do; empty if it can."""


def open_letters(
    *, ids: Collection[int] | None = None, group: str | None = None, event_type: str | None = None
) -> Iterator[int]:
    """Yield the ids of the open dead letters that match all arguments, oldest first.

    Letters that are recorded after the iteration starts are left out, so that failing messages are not replayed in a
    loop.
    """
    letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN)
    if ids is not None:
        letters = letters.filter(pk__in=ids)
    if group is not None:
        letters = letters.filter(group=group)
    if event_type is not None:
        letters = letters.filter(event_type=event_type)
    for ids_of_step in in_steps(letters, size=IDS_PER_QUERY):
        yield from ids_of_step


def describe(letter: DeadLetter) -> str:
    """Return a description of the dead letter on one line."""
    event = f"{letter.event_type or 'no event type'}, {letter.event_id or 'no event id'}"
    failure = f"{letter.error_class}, replayed {_times(letter.replay_count)}"
    return f"letter {letter.pk}: {letter}, {event}, {failure}, group {letter.group}"


def _times(count: int) -> str:
    return f"{count} time{pluralize(count)}"


def with_sizes(letters: models.QuerySet[DeadLetter]) -> models.QuerySet[Any]:
    """Annotate each letter with `size_bytes`, the size of its message.

    The database computes the size, and does not send the message.
    """
    return letters.annotate(size_bytes=stored_bytes())


def obstacle_to(letter: Any) -> Obstacle | None:
    """Return the reason why a letter from `with_sizes` cannot be replayed; None if it can."""
    if letter.state != DeadLetter.State.OPEN:
        return Obstacle.CLOSED
    if not letter.is_readable:
        return Obstacle.CONTENT_UNKNOWN
    if letter.size_bytes > MAX_MESSAGE_BYTES:
        return Obstacle.TOO_LARGE
    if letter.replay_count >= settings.DEAD_LETTER_REPLAY_LIMIT:
        return Obstacle.LIMIT
    return None


def preview(*, letter_id: int) -> Outcome:
    """Return what `replay` would do, and change nothing. Raises DeadLetter.DoesNotExist."""
    letter = with_sizes(DeadLetter.objects.defer(*MESSAGE_FIELDS, "stacktrace")).get(pk=letter_id)
    return _outcome(letter)


def replay(*, letter_id: int) -> Outcome:
    """Record the dead letter's message in the outbox, unless an obstacle prevents it.

    The message is sent after the transaction has committed.

    Raises DeadLetter.DoesNotExist.
    """
    with transaction.atomic():
        # The message is loaded later, after the check of its size.
        letters = DeadLetter.objects.select_for_update().defer(*MESSAGE_FIELDS, "stacktrace")
        letter = with_sizes(letters).get(pk=letter_id)
        outcome = _outcome(letter)
        if outcome.obstacle is None:
            letter.refresh_from_db(fields=MESSAGE_FIELDS)
            letter.replay_count += 1
            letter.save(update_fields=["replay_count"])
            begin_attempt(letter)
            message = _record(letter)
            transaction.on_commit(lambda: publish([message]), robust=True)
        return outcome


def _outcome(letter: Any) -> Outcome:
    obstacle = obstacle_to(letter)
    if obstacle is None:
        return Outcome(letter=letter, obstacle=None, refusal="")
    reasons = {
        Obstacle.CLOSED: f"it is {letter.state} already, so there is nothing to do",
        Obstacle.CONTENT_UNKNOWN: (
            "its content is unknown, because the client could not read the record or refused it for its size: see the "
            "letter's reason. Let its producer send it again"
        ),
        Obstacle.TOO_LARGE: (
            f"its {letter.size_bytes} bytes are more than the {MAX_MESSAGE_BYTES} that a message may have. Let its "
            "producer send the event again, smaller, and dismiss the letter"
        ),
        Obstacle.LIMIT: (
            f"it was replayed {_times(letter.replay_count)}, which is the limit. See its error in the admin, then let "
            "its producer send the event again, or dismiss the letter"
        ),
    }
    refusal = f"Letter {letter.pk} ({letter}) is not replayed: {reasons[obstacle]}."
    return Outcome(letter=letter, obstacle=obstacle, refusal=refusal)


def _record(letter: DeadLetter) -> Message:
    key = None if letter.key is None else bytes(letter.key)
    value = None if letter.value is None else bytes(letter.value)
    return outbox.record(
        Message(
            event_id=uuid4(),
            event_type=REPLAY,
            topic=letter.topic,
            partition=letter.partition,
            key=key,
            # The client cannot send a null key with a null value.
            value=b"" if key is None and value is None else value,
            headers=pack(_headers(letter)),
            created_at=now(),
            dead_letter_id=letter.pk,
        )
    )


def _headers(letter: DeadLetter) -> list[Header]:
    """Return the message's headers, then those of its replay. Null values become b"": the client cannot send null."""
    original = unpack(letter.headers)
    kept = [(name, value or b"") for name, value in original if name not in (COUNT_HEADER, LETTER_ID_HEADER)]
    return [
        *kept,
        (COUNT_HEADER, str(letter.replay_count).encode()),
        (LETTER_ID_HEADER, str(letter.pk).encode()),
    ]
