"""The group `fulfilment` takes the replies of payments and shipping."""

from collections.abc import Sequence
from functools import partial

from django.db import transaction
from prometheus_client import Counter

from events.outbox.publisher import publish
from events.subscriptions import Subscription, Topic, register
from events.wire import commands
from events.wire.commands import Reply
from events.wire.foreign_text import cut, storable
from fulfilment.advancing import News, advance
from fulfilment.models import FulfilmentStep
from fulfilment.transitions import REPLIES

REASON_LIMIT_CHARS = 500
"""Largest number of characters that are stored of a reply's reason."""
foreign_total = Counter(
    "fulfilment_foreign_replies_total", "Replies to commands that no step of the named order has sent."
)


def take_replies(replies: Sequence[Reply]) -> None:
    """Advance each fulfilment by the replies to its commands.

    A reply has an effect only if the order's fulfilment has a step with the reply's command id, and if the reply's type
    answers this step. All other replies are ignored, and the metric of foreign replies counts them.
    """
    steps = FulfilmentStep.objects.in_bulk([reply.command_id for reply in replies])
    news = []
    for reply in replies:
        step = steps.get(reply.command_id)
        answered, _ = REPLIES[reply.event_type]
        if step and (step.step, step.fulfilment_id) == (answered, reply.reference):
            news.append(News(reply.reference, reply.event_type, reason=storable(cut(reply.reason, REASON_LIMIT_CHARS))))
    foreign = len(replies) - len(news)
    transaction.on_commit(lambda: foreign_total.inc(foreign), robust=True)
    messages = advance(news)
    transaction.on_commit(lambda: publish(messages), robust=True)


register(
    Subscription(
        group="fulfilment",
        topic=Topic.of_process("FULFILMENT_REPLIES_TOPIC", *REPLIES),
        decode=partial(commands.decode_reply, event_types=tuple(REPLIES)),
        handle=take_replies,
    )
)
