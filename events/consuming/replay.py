"""Send dead letters to their topics again. A letter stays open until a consumer has handled what was sent."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from uuid import uuid4

from django.conf import settings
from django.db import transaction
from django.template.defaultfilters import pluralize

from events.consuming.dead_letters import LETTER_ID_HEADER
from events.database import in_steps
from events.headers import Header, pack, unpack
from events.kafka import MAX_MESSAGE_BYTES
from events.messages import Message
from events.models import DeadLetter, stored_bytes
from events.outbox import recording as outbox
from events.outbox.publisher import publish
from events.timestamps import now

REPLAY = "REPLAY"
"""Type of an outbox row that is a replay. Its event id is its own, not the one of the event that it carries."""
COUNT_HEADER = "replay-count"
"""Tells, in digits, how often the letter has been replayed by now."""
IDS_AT_ONCE = 1000
STORED = ("key", "value", "headers")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one letter."""

    letter: DeadLetter
    refusal: str
    """Why it is not replayed, and what to do, for people; empty where it is."""


def open_letters(
    *, ids: Collection[int] | None = None, group: str | None = None, event_type: str | None = None
) -> Iterator[int]:
    """Ids of the letters that are open now, oldest first, of all or of these.

    Letters that come up meanwhile are left out, so that what fails again is not replayed in circles.
    """
    letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN)
    if ids is not None:
        letters = letters.filter(pk__in=ids)
    if group is not None:
        letters = letters.filter(group=group)
    if event_type is not None:
        letters = letters.filter(event_type=event_type)
    for ids_of_step in in_steps(letters, size=IDS_AT_ONCE):
        yield from ids_of_step


def describe(letter: DeadLetter) -> str:
    """Return one line about a letter, for people."""
    event = f"{letter.event_type or 'no event type'}, {letter.event_id or 'no event id'}"
    failure = f"{letter.error_class}, replayed {_times(letter.replay_count)}"
    return f"letter {letter.pk}: {letter}, {event}, {failure}, group {letter.group}"


def _times(count: int) -> str:
    return f"{count} time{pluralize(count)}"


def preview(*, letter_id: int) -> Outcome:
    """What `replay` would do. Raises DeadLetter.DoesNotExist."""
    letter = DeadLetter.objects.defer(*STORED, "stacktrace").get(pk=letter_id)
    return Outcome(letter=letter, refusal=_refusal(letter))


def replay(*, letter_id: int) -> Outcome:
    """Send the letter's message to its topic again, to be published once the transaction has committed.

    Raises DeadLetter.DoesNotExist.
    """
    with transaction.atomic():
        # What is stored is loaded when it turns out to be small enough.
        letter = DeadLetter.objects.select_for_update().defer(*STORED, "stacktrace").get(pk=letter_id)
        refusal = _refusal(letter)
        if not refusal:
            letter.refresh_from_db(fields=STORED)
            letter.replay_count += 1
            letter.save(update_fields=["replay_count"])
            message = _record(letter)
            transaction.on_commit(lambda: publish([message]), robust=True)
        return Outcome(letter=letter, refusal=refusal)


def _refusal(letter: DeadLetter) -> str:
    reason = _why_not(letter)
    return reason and f"Letter {letter.pk} ({letter}) is not replayed: {reason}."


def _why_not(letter: DeadLetter) -> str:
    if letter.state != DeadLetter.State.OPEN:
        return f"it is {letter.state} already, so that nothing is left to do"
    if not letter.is_readable:
        return (
            "its content is unknown, because the client could not read the record or refused it for its size: see the "
            "letter's reason. Let its producer send it again"
        )
    size = DeadLetter.objects.values_list(stored_bytes(), flat=True).get(pk=letter.pk)
    if size > MAX_MESSAGE_BYTES:
        return (
            f"its {size} bytes are more than the {MAX_MESSAGE_BYTES} that a message may have. Let its producer send "
            "the event again, smaller, and dismiss the letter"
        )
    if letter.replay_count >= settings.DEAD_LETTER_REPLAY_LIMIT:
        return (
            f"it was replayed {_times(letter.replay_count)}, which is the limit. See in the admin what it fails of, "
            "then let its producer send the event again, or dismiss the letter"
        )
    return ""


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
            # Our client cannot send a null key with a null value.
            value=b"" if key is None and value is None else value,
            headers=pack(_headers(letter)),
            created_at=now(),
            dead_letter_id=letter.pk,
        )
    )


def _headers(letter: DeadLetter) -> list[Header]:
    """The message's own, where our client cannot send a null value an empty one, and those of this replay."""
    original = unpack(letter.headers)
    kept = [(name, value or b"") for name, value in original if name not in (COUNT_HEADER, LETTER_ID_HEADER)]
    return [
        *kept,
        (COUNT_HEADER, str(letter.replay_count).encode()),
        (LETTER_ID_HEADER, str(letter.pk).encode()),
    ]
