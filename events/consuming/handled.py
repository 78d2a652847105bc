"""Conditions for outbox rows whose event a group has handled or dead-lettered.

A receipt is a row that a group has stored for a handled event, for example in the inbox. The event id alone proves
nothing, because any program that writes to the topic can use any id. So a receipt counts only if it also has the outbox
row's event type and stream. A dead letter counts only if its value also equals the outbox row's, byte for byte.
"""

from functools import reduce
from operator import and_, or_
from typing import Any

from django.db.models import CharField, Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat

from events.consuming.replay import REPLAY
from events.inbox import stream_of_row
from events.models import DeadLetter
from events.subscriptions import Subscription, Topic, subscriptions, topics


def letters_of_row(topic: Topic, *, group: str) -> QuerySet[DeadLetter]:
    """Return a subquery for queries of outbox rows: the group's dead letters of the row's event, in every state."""
    stream = Concat(Value(topic.stream_prefix), Cast(F("subject_id"), CharField()))
    return DeadLetter.objects.alias(stream=stream).filter(
        group=group,
        event_id=OuterRef("event_id"),
        event_type=OuterRef("event_type"),
        stream=stream_of_row(topic.stream_prefix),
        value=OuterRef("value"),
    )


def is_known_to(subscription: Subscription[Any]) -> Q:
    """Return the condition for outbox rows whose event the group has handled or dead-lettered, or always ignores."""
    return _is_handled_by(subscription) | Q(Exists(letters_of_row(subscription.topic, group=subscription.group)))


def is_settled_for(subscription: Subscription[Any]) -> Q:
    """Return the condition for outbox rows that the group no longer needs.

    The group has handled the row's event, or ignores its type, or has dead letters of the event that are all closed.
    """
    letters = letters_of_row(subscription.topic, group=subscription.group)
    open_letters = letters.filter(state=DeadLetter.State.OPEN)
    return _is_handled_by(subscription) | Q(Exists(letters), ~Exists(open_letters))


def is_settled() -> Q:
    """Return the condition for outbox rows that no registered group needs any more.

    The row of a replay is needed while the replayed dead letter is open. A row of any other kind is never needed if its
    topic has no registered group.
    """
    open_letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN)
    replay = Q(event_type=REPLAY) & ~Exists(open_letters.filter(pk=OuterRef("dead_letter")))
    read = {topic.name: subscriptions(topic.name) for topic in topics()}
    unread = ~Q(event_type=REPLAY) & ~Q(topic__in=[name for name, groups in read.items() if groups])
    by_topic = [
        Q(topic=name) & ~Q(event_type=REPLAY) & reduce(and_, map(is_settled_for, groups))
        for name, groups in read.items()
        if groups
    ]
    return reduce(or_, by_topic, replay | unread)


def _is_handled_by(subscription: Subscription[Any]) -> Q:
    return Q(event_type__in=subscription.unwanted) | Q(Exists(subscription.receipts_of_row()))
