"""The fast path: publish committed events at once, in the background. Whatever it leaves, the relay sends.

`publish` is meant for `transaction.on_commit`. Which publisher it uses is the setting `EVENT_PUBLISHER`, a dotted
path as Django's mail backends have it.
"""

import atexit
import logging
import os
import queue
import threading
from collections.abc import Sequence
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

    A full queue, a dead thread, a dead broker: the rows stay pending, and the relay sends them.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[Queued | None] = queue.Queue(maxsize=settings.OUTBOX_QUEUE_SIZE)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

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
            producer = Producer()
        except KafkaUnreachable as error:
            logger.warning("Events wait for the relay: %s", error)
            self._forget_queued()
            return
        # After the client's own exit handler, so that it runs before it: the client must not close first.
        atexit.register(self.close)
        try:
            closing, flows = False, True
            while not closing:
                ids, closing = self._next_batch()
                # In an outage one row at a time tries whether it is over, and the others are left to the relay:
                # preparing all of them in vain would cost the requests of this process their time.
                flows = self._deliver(ids if flows else ids[:1], producer)
        finally:
            atexit.unregister(self.close)
            producer.close()
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

    def _deliver(self, ids: list[int], producer: Producer) -> bool:
        """Whether Kafka took all of them."""
        flows = True
        try:
            connection.close_if_unusable_or_obsolete()
            reset_queries()  # With DEBUG on, Django keeps every statement.
            # A row whose predecessor is not recorded yet is left out: whoever records that one sends this one.
            wave = list(OutboxEvent.objects.sendable().filter(pk__in=ids).order_by("pk"))
            while wave:
                delivery = deliver(wave, producer=producer, path=OutboxEvent.Path.FAST)
                if delivery.error:
                    flows = False
                    logger.warning("%d events wait for the relay: %s", len(delivery.failed), delivery.error)
                wave = list(OutboxEvent.objects.followers_of(delivery.published))
        except Error as error:
            logger.warning("%d events wait for the relay: %s", len(ids), str(error).strip())
        return flows

    def _forget_queued(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return


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
