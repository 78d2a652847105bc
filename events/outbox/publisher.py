"""The fast path: publish committed events at once, in the background. The relay sends what the fast path misses.

A wave is a batch of messages that are sent together.

Call `publish` from `transaction.on_commit`. The setting `EVENT_PUBLISHER` is the dotted path of the publisher's class,
as `EMAIL_BACKEND` is for mail.
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
from events.models import OutboxEvent
from events.outbox.delivery import deliver
from events.wire.messages import Message
from events.wire.timestamps import now

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.0
"""Longest wait of `close` for the publisher's thread, in seconds."""
RELAY_CHECK_INTERVAL_S = 1.0
"""Shortest time between two checks during an outage, in seconds. A publisher with events to send checks whether the
relay has sent one of the failed messages."""
RETRY_AFTER_S = 30.0
"""Seconds after a failure until the publisher sends again, if the relay has sent none of the failed messages."""
PAUSE_PER_EVENT_S = 0.01
"""Shortest time from the start of a wave (a batch of events) to that of the next one, in seconds per event of the wave.

`MAX_PAUSE_S` limits this time. Events that arrive during the pause form the next wave, so waves grow with the load. A
large wave costs less CPU than many small ones (docs/performance.md).
"""
MAX_PAUSE_S = 0.4
"""Longest time that the publisher leaves between the starts of two waves (batches of events), in seconds. The time is
longer if sending is slow or if no event arrives."""
MIN_PAUSE_S = 0.005
"""Shortest pause between the end of a wave (a batch of events) and the next one, in seconds. While events only wait for
their predecessors and no new event arrives, the pause doubles each time, up to `MAX_PAUSE_S`."""
MAX_QUEUED_MESSAGE_BYTES = 4 * 1024
"""Largest size in bytes of a message that is queued in memory. A larger message waits for the relay.

Most events have a few hundred bytes.
"""


yielding_producer = partial(Producer, yields=True)
"""Create the publisher's producer. It pauses within a batch, so that the process's threads can handle requests."""


class Publisher(Protocol):
    """The interface of the classes that `EVENT_PUBLISHER` can name."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Accept committed messages. It must neither wait for Kafka nor raise."""

    def close(self) -> None:
        """Send the accepted messages, and end within a short time. Messages that are not sent by then stay pending."""


class RecordingPublisher:
    """Collects messages in `published` and sends nothing, for tests without a broker."""

    def __init__(self) -> None:
        self.published: list[Message] = []

    def publish(self, messages: Sequence[Message]) -> None:
        self.published.extend(messages)

    def close(self) -> None:
        self.published.clear()


class BackgroundPublisher:
    """Publishes from one thread per process, which starts with the first message and reads from a bounded queue.

    A message stays pending, and the relay sends it, if it is larger than `MAX_QUEUED_MESSAGE_BYTES`, if the queue is
    full, if the broker or the database fails, or if the thread dies. The next call of `publish` starts a new thread.
    During an outage the thread does not send, because a Kafka client that waits for the broker slows this process's
    requests.
    """

    def __init__(self, *, connect: Callable[[], Producer] = yielding_producer) -> None:
        """Create a publisher. `connect` creates the producer before the first messages are sent."""
        self._connect = connect
        # Not queue.Queue: its lock would make requests wait for one another.
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._producer: Producer | None = None
        self._waiting: list[Message] = []
        """Messages whose predecessor in the stream is not yet marked as published."""
        self._unsent: list[UUID] = []
        """Ids of the messages that Kafka did not acknowledge in the last outage. See `_is_away`."""
        self._next_check_at = self._retry_at = 0.0

    def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            # A message that is not queued stays pending.
            if message.size <= MAX_QUEUED_MESSAGE_BYTES and self._queue.qsize() < settings.OUTBOX_QUEUE_SIZE:
                self._queue.put(message)
        if not self._is_running():
            with self._starting:
                if not self._is_running():
                    self._thread = threading.Thread(target=self._run, name="event-publisher", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        if self._thread is not None and self._is_running():
            self._queue.put(None)
            self._thread.join(CLOSE_TIMEOUT_S)

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            closing = False
            shortest_pause = MIN_PAUSE_S
            while not closing:
                wave, closing = self._next_wave()
                next_at = time.monotonic() + min(PAUSE_PER_EVENT_S * len(wave), MAX_PAUSE_S)
                self._deliver(wave)
                # Without new messages, only the predecessors of `_waiting` are looked for, less and less often.
                shortest_pause = MIN_PAUSE_S if wave else min(2 * shortest_pause, MAX_PAUSE_S)
                time.sleep(max(shortest_pause, next_at - time.monotonic()))
        finally:
            if self._producer is not None:
                atexit.unregister(self.close)
                self._producer.close()
                self._producer = None
            connection.close()

    def _next_wave(self) -> tuple[list[Message], bool]:
        """Return the queued messages for the next wave (the next batch to send), and whether `close` was called.

        This method waits for a queued message, unless messages in `_waiting` are left from earlier waves.
        """
        queued = [] if self._waiting else [self._queue.get()]
        with suppress(queue.Empty):
            while len(queued) < settings.OUTBOX_BATCH_SIZE:
                queued.append(self._queue.get_nowait())
        return [message for message in queued if message is not None], None in queued

    def _deliver(self, messages: Sequence[Message]) -> None:
        wave = messages
        try:
            reset_queries()  # With DEBUG on, Django keeps every statement.
            # This comes before sending: after a restart of the database, a sent wave could not be marked as published.
            connection.close_if_unusable_or_obsolete()
            wave = self._sendable([*self._waiting, *messages])
            if not wave or self._is_away():
                return
            self._unsent = []
            delivery = deliver(wave, producer=self._connected(), path=OutboxEvent.Path.FAST)
            if delivery.error:
                self._note_outage(delivery.failed, delivery.error)
        except KafkaUnreachable as error:
            self._note_outage(wave, error)
        except Error as error:
            connection.close()
            waiting = f"{len(wave)} event{pluralize(len(wave))} wait{pluralize(len(wave), 's,')} for the relay"
            logger.warning("%s: %s", waiting, str(error).strip())

    def _sendable(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages that may be sent now. Messages whose predecessor is unpublished go to `_waiting`.

        Only messages with a predecessor need a query. Messages older than `OUTBOX_RELAY_GRACE` are left to the relay,
        so that a slow process does not send every message a second time.
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
        """Return the producer. The first call connects it. Raises KafkaUnreachable."""
        if self._producer is None:
            self._producer = self._connect()
            # Python runs exit handlers in reverse order. This one must run before the client's own, which closes the
            # client.
            atexit.register(self.close)
        return self._producer

    def _note_outage(self, unsent: Sequence[Message], error: Exception) -> None:
        logger.warning(
            "%d event%s, and those that follow, wait for the relay: %s", len(unsent), pluralize(len(unsent)), error
        )
        self._unsent = [message.event_id for message in unsent]
        self._next_check_at = time.monotonic() + RELAY_CHECK_INTERVAL_S
        self._retry_at = time.monotonic() + RETRY_AFTER_S

    def _is_away(self) -> bool:
        """Return whether Kafka counts as away.

        After a failure it does so until `RETRY_AFTER_S` have passed or the relay has sent one of the messages in
        `_unsent`, whichever comes first.
        """
        now = time.monotonic()
        if not self._unsent or now >= self._retry_at:
            return False
        if now < self._next_check_at:
            return True
        self._next_check_at = now + RELAY_CHECK_INTERVAL_S
        return not OutboxEvent.objects.filter(event_id__in=self._unsent).exclude(published_at=None).exists()


_current: Publisher | None = None


def current_publisher() -> Publisher:
    """Return the publisher of this process."""
    global _current
    if _current is None:
        _current = import_string(settings.EVENT_PUBLISHER)()
    return _current


def publish(messages: Sequence[Message]) -> None:
    """Hand committed messages to the publisher of this process."""
    current_publisher().publish(messages)


def _discard_publisher() -> None:
    """Drop the publisher, so that the next use creates a new one. Its thread and connections do not survive a fork."""
    global _current
    _current = None


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting == "EVENT_PUBLISHER" and _current is not None:
        _current.close()
        _discard_publisher()


os.register_at_fork(after_in_child=_discard_publisher)
setting_changed.connect(_on_setting_changed)
