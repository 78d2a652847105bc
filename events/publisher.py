"""The fast path: publish committed events at once, in the background. Whatever it leaves, the relay sends.

`publish` is meant for `transaction.on_commit`. Which publisher it uses is the setting `EVENT_PUBLISHER`, a dotted
path as Django's mail backends have it.
"""

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from django.conf import settings
from django.core.signals import setting_changed
from django.db import Error, connection, reset_queries
from django.utils.module_loading import import_string

from events.delivery import deliver
from events.kafka import KafkaUnreachable, Producer
from events.models import OutboxEvent

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2.0
"""Seconds that a process that ends waits for its fast path."""
LOOK_AFTER, TRY_AFTER = 1.0, 30.0
"""Seconds, in an outage, between two looks whether the relay gets through, and until the fast path tries by itself."""


class Publisher(Protocol):
    def publish(self, rows: Sequence[OutboxEvent]) -> None:
        """Take committed rows without waiting for Kafka, and without raising."""

    def close(self) -> None:
        """Finish what is in hand, briefly."""


class RecordingPublisher:
    """Keeps what it is given in `published`, and sends nothing: for tests without a broker."""

    def __init__(self) -> None:
        self.published: list[OutboxEvent] = []

    def publish(self, rows: Sequence[OutboxEvent]) -> None:
        self.published.extend(rows)

    def close(self) -> None:
        self.published.clear()


class Queued(NamedTuple):
    """A row that waits for the fast path; not the row itself, of which a full queue could hold gigabytes."""

    pk: int
    size: int


class BackgroundPublisher:
    """Publishes from one thread per process, started with the first event and fed through a bounded queue.

    A full queue, a dead thread, a dead broker: the rows stay pending, and the relay sends them. In an outage it does
    not even try, because a client that waits for its broker costs the requests of this process their time.
    """

    def __init__(self, *, connect: Callable[[], Producer] = Producer) -> None:
        """`connect` makes the producer when one is needed."""
        self._connect = connect
        self._queue: queue.Queue[Queued | None] = queue.Queue(maxsize=settings.OUTBOX_QUEUE_SIZE)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._producer: Producer | None = None
        self._kept: list[int] = []
        """Rows that Kafka did not take; while there are some, it counts as away."""
        self._look_at = self._try_at = 0.0

    def publish(self, rows: Sequence[OutboxEvent]) -> None:
        try:
            for row in rows:
                self._queue.put_nowait(Queued(row.pk, row.size))
        except queue.Full:
            pass  # The rows stay pending.
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="event-publisher", daemon=True)
                self._thread.start()

    def close(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        try:
            closing = False
            while not closing:
                ids, closing = self._next_batch()
                if ids:
                    self._deliver(ids)
        finally:
            if self._producer is not None:
                atexit.unregister(self.close)
                self._producer.close()
                self._producer = None
            connection.close()

    def _next_batch(self) -> tuple[list[int], bool]:
        """Row ids, as many as wait and fit in a batch, and whether they are the last."""
        batch = [self._queue.get()]
        size = 0
        while batch[-1] is not None and len(batch) < settings.OUTBOX_BATCH_SIZE:
            size += batch[-1].size
            if size >= settings.OUTBOX_BATCH_BYTES:
                break
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return [queued.pk for queued in batch if queued is not None], batch[-1] is None

    def _deliver(self, ids: list[int]) -> None:
        try:
            connection.close_if_unusable_or_obsolete()
            reset_queries()  # With DEBUG on, Django keeps every statement.
            if self._is_away():
                return
            self._kept = []
            # A row whose predecessor is not recorded yet is left out: whoever records that one sends this one.
            wave = list(OutboxEvent.objects.sendable().filter(pk__in=ids).order_by("pk"))
            while wave:
                delivery = deliver(wave, producer=self._connected(), path=OutboxEvent.Path.FAST)
                if delivery.error:
                    self._note_outage([row.pk for row in delivery.failed], delivery.error)
                wave = list(OutboxEvent.objects.followers_of(delivery.published))
        except KafkaUnreachable as error:
            self._note_outage(ids, error)
        except Error as error:
            logger.warning("%d events wait for the relay: %s", len(ids), str(error).strip())

    def _connected(self) -> Producer:
        """Raises KafkaUnreachable."""
        if self._producer is None:
            self._producer = self._connect()
            # After the client's own exit handler, so that it runs before it: the client must not close first.
            atexit.register(self.close)
        return self._producer

    def _note_outage(self, kept: list[int], error: Exception) -> None:
        logger.warning("%d events, and those that follow, wait for the relay: %s", len(kept), error)
        self._kept = kept
        self._look_at = time.monotonic() + LOOK_AFTER
        self._try_at = time.monotonic() + TRY_AFTER

    def _is_away(self) -> bool:
        """Whether Kafka still is: until the relay has sent what it kept, or for `TRY_AFTER`."""
        now = time.monotonic()
        if not self._kept or now >= self._try_at:
            return False
        if now < self._look_at:
            return True
        self._look_at = now + LOOK_AFTER
        return not OutboxEvent.objects.filter(pk__in=self._kept).exclude(published_at=None).exists()


_current: Publisher | None = None


def current_publisher() -> Publisher:
    """This process's publisher."""
    global _current
    if _current is None:
        _current = import_string(settings.EVENT_PUBLISHER)()
    return _current


def publish(rows: Sequence[OutboxEvent]) -> None:
    """Publish committed rows at once, as far as that is possible."""
    current_publisher().publish(rows)


def _forget() -> None:
    """A thread and its connections do not survive a fork; the child makes its own."""
    global _current
    _current = None


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting == "EVENT_PUBLISHER" and _current is not None:
        _current.close()
        _forget()


os.register_at_fork(after_in_child=_forget)
setting_changed.connect(_on_setting_changed)
