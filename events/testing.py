"""For tests of one's own subscriptions: deliver events without a broker."""

import time
from collections.abc import Sequence
from itertools import count
from typing import Any

from events.consuming.consumer import DEAD_LETTERS_IN_A_ROW
from events.consuming.processing import Processor
from events.kafka import Record
from events.models import DeadLetter
from events.subscriptions import Subscription

_offsets = count()


def deliver(subscription: Subscription[Any], values: Sequence[bytes | None]) -> list[DeadLetter]:
    """Deliver record values to `subscription` in one batch, as a consumer would, and return the new dead letters.

    The values are handled as they would be from the topic: decoded, claimed, handed over in one transaction, halved
    where the batch fails. Call it inside a test that may use the database.

    Raises:
        events.troubles.Suspect: handling failed for a reason that is not the data's. A consumer would try again.
        django.db.Error, events.troubles.Outage: something is away. A consumer would try again for ever.
    """
    records = [_record(subscription.topic.name, value) for value in values]
    known = set(DeadLetter.objects.filter(group=subscription.group).values_list("pk", flat=True))
    Processor(subscription, max_consecutive_dead_letters=DEAD_LETTERS_IN_A_ROW).process(records)
    return list(DeadLetter.objects.filter(group=subscription.group).exclude(pk__in=known).order_by("pk"))


def _record(topic: str, value: bytes | None) -> Record:
    """Make a record of partition 0, with an offset of its own."""
    fields: dict[str, Any] = dict.fromkeys(Record._fields)
    fields |= {"topic": topic, "partition": 0, "offset": next(_offsets), "timestamp": int(time.time() * 1000)}
    fields |= {"timestamp_type": 0, "key": None, "value": value, "headers": []}
    return Record(**fields)
