"""The consumer: poll, decode, save in one transaction, commit exactly these offsets."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from django.db import DataError, Error, IntegrityError, connection, reset_queries, transaction

from events.dead_letters import Poison, record_dead_letter
from events.kafka import Consumer, Record
from events.publisher import publish

logger = logging.getLogger(__name__)

POLL_TIMEOUT = 1.0
"""Seconds; a signal is noticed within this time, because the client has no wakeup()."""
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 10.0
"""Seconds between the attempts of an outage."""

Event = TypeVar("Event")


class Handler(Protocol[Event]):
    """What an application does with the events of a topic."""

    def decode(self, record: Record) -> Event:
        """Raises Poison where the record is no event."""

    def save(self, events: Sequence[Event]) -> None:
        """Save what follows from `events`, in the caller's transaction.

        Must change nothing for events it has saved before: every event may come again.
        """


@dataclass(kw_only=True)
class EventConsumer(Generic[Event]):
    """Works one consumer's batches off. See `run`."""

    source: Consumer
    handler: Handler[Event]
    group: str
    stopping: Callable[[], bool]

    def run(self) -> None:
        """Consume until `stopping`; a batch that has begun is finished and committed.

        An outage of the database is retried for ever: the offsets stay uncommitted, the partitions are held, and
        polling goes on so that the group keeps this member.
        """
        failures = 0
        while not self.stopping():
            records = self.source.poll(timeout=POLL_TIMEOUT)
            if not records:
                continue
            reset_queries()  # With DEBUG on, Django keeps every statement.
            try:
                self.process(records)
            except Error as error:
                failures += 1
                self._sit_out(records, error, failures)
                continue
            failures = 0
            self.source.commit(records)

    def process(self, records: Sequence[Record]) -> None:
        """Turn `records` into what the handler saves, and into dead letters where that is impossible.

        If a batch fails for a reason of its data, it is halved until the culprit stands alone.

        Raises:
            django.db.Error: the database is away, or gave up for reasons of its own. Nothing of the failing part is
                saved; all of it may be tried again.
        """
        try:
            with transaction.atomic():
                self._save(records)
        except Exception as error:
            # Of the database's errors only these are about the data; all others are about the world.
            if isinstance(error, Error) and not isinstance(error, DataError | IntegrityError):
                raise
            if len(records) > 1:
                middle = len(records) // 2
                self.process(records[:middle])
                self.process(records[middle:])
            else:
                with transaction.atomic():
                    self._dead_letter(records[0], error)

    def _save(self, records: Sequence[Record]) -> None:
        events = []
        for record in records:
            try:
                events.append(self.handler.decode(record))
            except Poison as poison:
                self._dead_letter(record, poison)
        if events:
            self.handler.save(events)

    def _dead_letter(self, record: Record, error: Exception) -> None:
        copy = record_dead_letter(record=record, error=error, group=self.group)
        if copy is None:
            return  # It stands as a dead letter already.

        def tell() -> None:
            position = f"{record.topic}[{record.partition}]@{record.offset}"
            logger.error("Dead letter %s: %s: %s", position, type(error).__name__, error)
            publish([copy])

        transaction.on_commit(tell, robust=True)

    def _sit_out(self, records: Sequence[Record], error: Exception, failures: int) -> None:
        jitter = random.uniform(0.5, 1)  # noqa: S311
        pause = jitter * min(FIRST_BACKOFF * 2 ** (failures - 1), LAST_BACKOFF)
        logger.warning("Database trouble, %d records again in %.1f s: %s", len(records), pause, str(error).strip())
        connection.close()
        self.source.hold(records)
        deadline = time.monotonic() + pause
        while not self.stopping() and (left := deadline - time.monotonic()) > 0:
            # A rebalance hands out partitions that are not held yet.
            newly_assigned = self.source.poll(timeout=min(left, POLL_TIMEOUT))
            if newly_assigned:
                self.source.hold(newly_assigned)
        self.source.release()
