"""Whether a group has handled the event of an outbox row, or set it aside: the one definition of both.

An event id alone proves nothing, because any program that writes to the topic may put any id into its messages. So
receipts and dead letters count only where they also name the row's event type and stream.
"""

from functools import reduce
from operator import and_, or_
from typing import Any

from django.db.models import CharField, Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat

from events.consuming.replay import REPLAY
from events.models import DeadLetter
from events.subscriptions import Subscription, Topic, subscriptions, topics


def letters_of_row(topic: Topic, *, group: str) -> QuerySet[DeadLetter]:
    """Return the group's letters, open or closed, of the event in the outbox row that the outer query looks at."""
    stream = Concat(Value(topic.stream_prefix), Cast(F("subject_id"), CharField()))
    return DeadLetter.objects.alias(stream=stream).filter(
        group=group, event_id=OuterRef("event_id"), event_type=OuterRef("event_type"), stream=OuterRef("stream")
    )


def is_known_to(subscription: Subscription[Any]) -> Q:
    """Return the condition of outbox rows whose event the group has handled, set aside, or does not want."""
    return (
        Q(event_type__in=subscription.unwanted)
        | Exists(subscription.receipts_of_row())
        | Exists(letters_of_row(subscription.topic, group=subscription.group))
    )


def is_settled_for(subscription: Subscription[Any]) -> Q:
    """Return the condition of outbox rows that the group needs no longer: handled, unwanted, or all letters closed."""
    letters = letters_of_row(subscription.topic, group=subscription.group)
    return (
        Q(event_type__in=subscription.unwanted)
        | Exists(subscription.receipts_of_row())
        | Exists(letters) & ~Exists(letters.filter(state=DeadLetter.State.OPEN))
    )


def is_settled() -> Q:
    """Return the condition of outbox rows that no registered group needs any more.

    A replay is needed while its letter is open. Rows of topics that no group reads are not needed.
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
