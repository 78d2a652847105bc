"""The inbox gives each event to a group's handler once, even if the event is delivered again."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec
import pytest
from django.db import connection, transaction

from events import inbox
from events.consuming.processing import Processor
from events.consuming.replay import replay
from events.models import DeadLetter, InboxEntry, OutboxEvent
from events.subscriptions import Subscription, Topic
from events.testing import deliver
from events.troubles import EventIdConflict, Outage, Poison
from testkit.factories import OutboxEventFactory, kafka_record

pytestmark = pytest.mark.django_db

TOPIC = Topic(setting="ORDER_EVENTS_TOPIC", event_types=("MADE", "MOVED"))


class Thing(msgspec.Struct, frozen=True):
    event_id: UUID
    event_type: str = "MADE"
    stream: str = "thing-1"
    owner: int | None = None
    timestamp: datetime = datetime(2025, 1, 30, tzinfo=UTC)


def decode(value: bytes | None) -> Thing:
    try:
        return msgspec.json.decode(value or b"", type=Thing)
    except msgspec.DecodeError as error:
        raise Poison(str(error)) from error


@dataclass
class Handler:
    """Writes a row for each event, then calls `then`."""

    then: Callable[[Sequence[Thing]], object] = len

    def __call__(self, events: Sequence[Thing]) -> None:
        for event in events:
            OutboxEventFactory.create(topic="handled", key=event.event_id.bytes)
        self.then(events)


def subscribed(group: str = "things", *, handler: Handler | None = None) -> Subscription[Thing]:
    return Subscription(group=group, topic=TOPIC, decode=decode, handle=handler or Handler())


def handled() -> list[UUID]:
    rows = OutboxEvent.objects.filter(topic="handled").order_by("pk")
    return [UUID(bytes=bytes(row.key or b"")) for row in rows]


def values(*events: Thing) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]


def things(count: int) -> list[Thing]:
    return [Thing(uuid4()) for _ in range(count)]


def test_new_events_are_handed_over_in_their_order() -> None:
    events = things(20)
    assert deliver(subscribed(), values(*events)) == []
    assert handled() == [event.event_id for event in events]


@pytest.mark.parametrize("batches", [[0, 0], [0, 1, 0, 1, 2, 2]], ids=str)
def test_a_repeat_within_a_batch_is_handed_over_once(batches: list[int]) -> None:
    events = things(3)
    deliver(subscribed(), values(*[events[number] for number in batches]))
    assert handled() == [events[number].event_id for number in dict.fromkeys(batches)]


def test_a_repeat_in_a_later_batch_is_not_handed_over() -> None:
    first, second = things(2)
    deliver(subscribed(), values(first))
    deliver(subscribed(), values(second, first))
    assert handled() == [first.event_id, second.event_id]


def test_each_group_handles_every_event() -> None:
    (event,) = things(1)
    for group in ("things", "others", "things"):
        deliver(subscribed(group), values(event))
    assert handled() == [event.event_id] * 2


@pytest.mark.parametrize("error", [Outage("away"), KeyError("odd")], ids=repr)
def test_a_failure_takes_back_writes_and_claims(error: Exception) -> None:
    events = things(2)

    def fail(_: Sequence[Thing]) -> None:
        raise error

    with pytest.raises(Exception):  # noqa: B017, PT011 - the type depends on the kind of the failure
        deliver(subscribed(handler=Handler(fail)), values(*events))
    assert (handled(), InboxEntry.objects.count()) == ([], 0)
    deliver(subscribed(), values(*events))
    assert handled() == [event.event_id for event in events]


def test_the_culprit_alone_becomes_a_dead_letter() -> None:
    events = things(8)

    def refuse(some: Sequence[Thing]) -> None:
        if events[5] in some:
            raise Poison("not this one")

    (letter,) = deliver(subscribed(handler=Handler(refuse)), values(*events))
    assert letter.error_message == "not this one"
    assert set(handled()) == {event.event_id for event in events} - {events[5].event_id}
    assert InboxEntry.objects.count() == 7


def test_a_replayed_letter_is_handled_by_its_group_alone() -> None:
    (event,) = things(1)
    deliver(subscribed("others"), values(event))

    def refuse(_: Sequence[Thing]) -> None:
        raise Poison("not yet")

    (letter,) = deliver(subscribed(handler=Handler(refuse)), values(event))
    assert not replay(letter_id=letter.pk).refusal
    row = OutboxEvent.objects.get(event_type="REPLAY")
    for group in ("others", "things"):
        deliver(subscribed(group), [bytes(row.value or b"")])
    assert handled() == [event.event_id] * 2
    assert set(InboxEntry.objects.values_list("group", flat=True)) == {"others", "things"}


def test_unwanted_types_are_ignored() -> None:
    made, moved = things(2)
    wanting = replace(subscribed(), event_types=["MADE"])
    assert deliver(wanting, values(made, msgspec.structs.replace(moved, event_type="MOVED"))) == []
    assert handled() == [made.event_id]
    assert InboxEntry.objects.get().event_id == made.event_id


@pytest.mark.parametrize("changed", [{"event_type": "MOVED"}, {"stream": "thing-2"}, {"owner": 7}], ids=str)
@pytest.mark.parametrize("batches", [1, 2])
def test_an_id_of_another_event_is_a_dead_letter(changed: dict[str, object], batches: int) -> None:
    (event,) = things(1)
    other = msgspec.structs.replace(event, **changed)
    letters: list[DeadLetter] = []
    for batch in [[event, other]] if batches == 1 else [[event], [other]]:
        letters += deliver(subscribed(), values(*batch))
    (letter,) = letters
    assert letter.error_class == "events.troubles.EventIdConflict"
    assert handled() == [event.event_id]


def test_a_handled_event_is_known_by_its_whole_identity() -> None:
    first, second = things(2)
    deliver(subscribed(), values(first))
    assert set(subscribed().handled([first, second])) == {first.event_id}
    for changed in ({"event_type": "MOVED"}, {"stream": "thing-2"}, {"owner": 7}):
        assert subscribed().handled([msgspec.structs.replace(first, **changed)]) == {}
    assert subscribed("others").handled([first]) == {}


@pytest.mark.django_db(transaction=True)
def test_two_processes_with_the_same_event_handle_it_once() -> None:
    (event,) = things(1)
    claimed, outcome = threading.Event(), []

    def claim_later() -> None:
        claimed.wait(10)
        with transaction.atomic():
            outcome.append(inbox.claim(group="things", events=[event]))
        connection.close()

    other = threading.Thread(target=claim_later)
    other.start()
    with transaction.atomic():
        assert inbox.claim(group="things", events=[event]) == [event]
        claimed.set()
    other.join(10)
    assert outcome == [[]]


def test_a_conflict_names_both_events() -> None:
    (event,) = things(1)
    inbox.claim(group="things", events=[event])
    with pytest.raises(EventIdConflict, match=r"first with MADE of thing-1, and now with MOVED of thing-1 for user 7"):
        inbox.claim(group="things", events=[msgspec.structs.replace(event, event_type="MOVED", owner=7)])


def test_unreadable_values_are_dead_letters_of_the_group() -> None:
    processed = Processor(subscribed(), max_consecutive_dead_letters=10).process([kafka_record(b"garbage")])
    assert (processed.done, DeadLetter.objects.get().group) == (1, "things")
