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
from contextlib import suppress
from functools import partial
from typing import Protocol
from uuid import UUID

from django.conf import settings
from django.core.signals import setting_changed
from django.db import Error, connection, reset_queries
from django.template.defaultfilters import pluralize
from django.utils.module_loading import import_string

from events.kafka import KafkaUnreachable, Producer
from events.messages import Message
from events.models import OutboxEvent
from events.outbox.delivery import deliver
from events.timestamps import now

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2.0
"""Seconds that a process that ends waits for its fast path."""
LOOK_AFTER, TRY_AFTER = 1.0, 30.0
"""Seconds, in an outage, between two looks whether the relay gets through, and until the fast path tries by itself."""
PAUSE_PER_EVENT, LONGEST_PAUSE, REST = 0.01, 0.4, 0.005
"""Seconds from the start of one wave to the next: for each event of it, at most, and behind its end at least. Waves
grow where more than one event comes in a pause: one of 15 events costs 3 ms of CPU, 15 of one event 25 ms. A single
event waits no longer than for its predecessor's wave and pause.

With 0.005 an event a machine that saturates at 200 orders/s in a worker sends them one by one, and took 335 orders/s
instead of 401; 0.02 was no better. With a longest pause of 0.2 a saturated server took 1 to 5 % fewer orders in each of
four runs."""
LARGEST = 4 * 1024
"""Bytes of a message that is worth keeping in memory; order events have some 600. Larger ones wait for the relay."""


giving_way = partial(Producer, gives_way=True)
"""Because it shares its process with requests."""


class Publisher(Protocol):
    def publish(self, messages: Sequence[Message]) -> None:
        """Take committed messages without waiting for Kafka, and without raising."""

    def close(self) -> None:
        """Finish what is in hand, briefly."""


class RecordingPublisher:
    """Keeps what it is given in `published`, and sends nothing: for tests without a broker."""

    def __init__(self) -> None:
        self.published: list[Message] = []

    def publish(self, messages: Sequence[Message]) -> None:
        self.published.extend(messages)

    def close(self) -> None:
        self.published.clear()


class BackgroundPublisher:
    """Publishes from one thread per process, started with the first event and fed through a bounded queue.

    A full queue, a dead thread, a dead broker: messages stay pending, and the relay sends them. In an outage it does
    not even try, because a client that waits for its broker costs the requests of this process their time.
    """

    def __init__(self, *, connect: Callable[[], Producer] = giving_way) -> None:
        """`connect` makes the producer when one is needed."""
        self._connect = connect
        # Not queue.Queue, which Python locks for each row: requests would wait there for one another.
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._producer: Producer | None = None
        self._waiting: list[Message] = []
        """Messages whose predecessor in the stream is not recorded as published yet."""
        self._kept: list[UUID] = []
        """Messages that Kafka did not take; while there are some, it counts as away."""
        self._look_at = self._try_at = 0.0

    def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            # Otherwise it stays pending.
            if message.size <= LARGEST and self._queue.qsize() < settings.OUTBOX_QUEUE_SIZE:
                self._queue.put(message)
        if not self._is_running():
            with self._starting:
                if not self._is_running():
                    self._thread = threading.Thread(target=self._run, name="event-publisher", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        if self._thread is not None and self._is_running():
            self._queue.put(None)
            self._thread.join(CLOSE_TIMEOUT)

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            closing = False
            while not closing:
                wave, closing = self._next_wave()
                next_at = time.monotonic() + min(PAUSE_PER_EVENT * len(wave), LONGEST_PAUSE)
                self._deliver(wave)
                time.sleep(max(REST, next_at - time.monotonic()))
        finally:
            if self._producer is not None:
                atexit.unregister(self.close)
                self._producer.close()
                self._producer = None
            connection.close()

    def _next_wave(self) -> tuple[list[Message], bool]:
        """What is queued, as much as fits in a batch, and whether it is the last. It waits for something to do."""
        queued = [] if self._waiting else [self._queue.get()]
        with suppress(queue.Empty):
            while len(queued) < settings.OUTBOX_BATCH_SIZE:
                queued.append(self._queue.get_nowait())
        return [message for message in queued if message is not None], None in queued

    def _deliver(self, messages: Sequence[Message]) -> None:
        wave = messages
        try:
            reset_queries()  # With DEBUG on, Django keeps every statement.
            # A database that restarted since must not be noticed only when the wave is sent, and cannot be recorded.
            connection.close_if_unusable_or_obsolete()
            wave = self._sendable([*self._waiting, *messages])
            if not wave or self._is_away():
                return
            self._kept = []
            delivery = deliver(wave, producer=self._connected(), path=OutboxEvent.Path.FAST)
            if delivery.error:
                self._note_outage(delivery.failed, delivery.error)
        except KafkaUnreachable as error:
            self._note_outage(wave, error)
        except Error as error:
            connection.close()
            wait = f"{len(wave)} event{pluralize(len(wave))} wait{pluralize(len(wave), 's,')} for the relay"
            logger.warning("%s: %s", wait, str(error).strip())

    def _sendable(self, messages: Sequence[Message]) -> list[Message]:
        """Those of `messages` that may be sent now; those that may soon are kept waiting.

        Only those with a predecessor have to be looked up, which most orders never have. What the relay takes by
        now is left to it, so that not all of them are sent twice when this process is slow.
        """
        relays_by = now() - settings.OUTBOX_RELAY_GRACE
        young = [message for message in messages if message.created_at > relays_by]
        followers = {message.event_id for message in young if (message.sequence or 1) > 1}
        blocked: set[UUID] = set()
        if followers:
            sendable = OutboxEvent.objects.sendable().filter(event_id__in=followers)
            blocked = followers.difference(sendable.values_list("event_id", flat=True))
        self._waiting = [message for message in young if message.event_id in blocked]
        return [message for message in young if message.event_id not in blocked]

    def _connected(self) -> Producer:
        """Raises KafkaUnreachable."""
        if self._producer is None:
            self._producer = self._connect()
            # After the client's own exit handler, so that it runs before it: the client must not close first.
            atexit.register(self.close)
        return self._producer

    def _note_outage(self, kept: Sequence[Message], error: Exception) -> None:
        logger.warning(
            "%d event%s, and those that follow, wait for the relay: %s", len(kept), pluralize(len(kept)), error
        )
        self._kept = [message.event_id for message in kept]
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
        return not OutboxEvent.objects.filter(event_id__in=self._kept).exclude(published_at=None).exists()


_current: Publisher | None = None


def current_publisher() -> Publisher:
    """This process's publisher."""
    global _current
    if _current is None:
        _current = import_string(settings.EVENT_PUBLISHER)()
    return _current


def publish(messages: Sequence[Message]) -> None:
    """Publish committed messages at once, as far as that is possible."""
    current_publisher().publish(messages)


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
