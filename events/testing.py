"""Deliver events to a subscription in a test, without a broker."""

import time
from collections.abc import Sequence
from itertools import count
from typing import Any

from events.consuming.consumer import DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS
from events.consuming.processing import Processor
from events.kafka import Record
from events.models import DeadLetter
from events.subscriptions import Subscription

_offsets = count()


def deliver(subscription: Subscription[Any], values: Sequence[bytes | None], *, partition: int = 0) -> list[DeadLetter]:
    """Deliver record values to `subscription` in one batch, as a consumer does, and return the new dead letters.

    The values are decoded, claimed and handled in one transaction. A batch that fails is halved, as in production. The
    test needs access to the database.

    Raises:
        events.troubles.Suspect: handling failed for an unknown reason. A consumer would retry a few times.
        django.db.Error, events.troubles.Outage: a dependency failed. A consumer would retry without a limit.
    """
    records = [_record(subscription.topic.name, partition, value) for value in values]
    known = set(DeadLetter.objects.filter(group=subscription.group).values_list("pk", flat=True))
    Processor(subscription, max_consecutive_dead_letters=DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS).process(records)
    return list(DeadLetter.objects.filter(group=subscription.group).exclude(pk__in=known).order_by("pk"))


def _record(topic: str, partition: int, value: bytes | None) -> Record:
    """Return a record with a unique offset."""
    fields: dict[str, Any] = dict.fromkeys(Record._fields)
    fields |= {"topic": topic, "partition": partition, "offset": next(_offsets), "timestamp": int(time.time() * 1000)}
    fields |= {"timestamp_type": 0, "key": None, "value": value, "headers": []}
    return Record(**fields)
