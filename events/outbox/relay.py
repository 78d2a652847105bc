"""The relay sends the events that the fast path (`publisher`) did not send. Any number of relays may run, in turns."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import Error, connection, reset_queries, transaction
from django.db.models import Q
from django.template.defaultfilters import pluralize

from events.database_clock import database_now
from events.kafka import MAX_MESSAGE_BYTES, KafkaRefuses, KafkaUnreachable, Producer
from events.models import OutboxEvent, OutboxQuerySet
from events.outbox.delivery import Delivery, deliver, park
from events.wire.messages import Message

logger = logging.getLogger(__name__)

TURN_LOCK_ID = 0x6F7574626F78
"""Key of the advisory lock that a relay holds for its turn. No other advisory lock of this database may have it."""
TURN_TIMEOUT_MS = 8_000
"""Longest wait for the next statement, and longest statement, in a relay's transaction, in milliseconds.

After this time PostgreSQL ends the transaction, so that a relay that is frozen or has lost its connection frees its
lock, and another relay can send.
"""


class Relay:
    """Sends pending outbox rows. It goes topic by topic, so that a missing topic delays the others only a little."""

    def __init__(
        self,
        *,
        stopping: Callable[[], bool],
        wait: Callable[[float], object],
        connect: Callable[[], Producer] = Producer,
    ) -> None:
        """Create a relay.

        `stopping` returns whether to end. `wait` pauses for a number of seconds. `connect` creates the producer when
        there are rows to send.
        """
        self._stopping = stopping
        self._wait = wait
        self._connect = connect
        self._producer: Producer | None = None
        self._last_tried_pk: dict[str, int] = {}
        """Primary key of the last row that was tried, by topic."""

    def run(self) -> None:
        """Call `sweep` until `stopping` returns True. Outages of Kafka and of the database do not end the loop.

        Raises:
            KafkaRefuses: Kafka refused the connection of a new producer.
        """
        in_outage = False
        while not self._stopping():
            reset_queries()  # With DEBUG on, Django keeps every statement.
            sent, outage = self.sweep(older_than=settings.OUTBOX_RELAY_GRACE)
            if sent:
                logger.info("Sent %d event%s", sent, pluralize(sent))
            if isinstance(outage, KafkaRefuses):
                raise outage
            if outage and not in_outage:
                logger.warning("Events stay pending: %s", str(outage).strip())
            elif in_outage and not outage:
                logger.info("The outage is over, pending events are sent")
            in_outage = outage is not None
            self._wait(settings.OUTBOX_RELAY_INTERVAL.total_seconds())

    def sweep(self, *, older_than: timedelta, wait_for_turn: bool = False) -> tuple[int, Exception | None]:
        """Send every sendable row whose age is at least `older_than`, and those that follow it in its stream and topic.

        Return the number of sent rows, and the exception of the last outage or None. With `wait_for_turn`, wait while
        another relay has its turn. Otherwise leave the rows to that relay.
        """
        sent, outage = 0, None
        try:
            due = database_now() - older_than
            for topic in self._topics(due):
                followed: list[Message] = []
                while not self._stopping():
                    delivery = self._take_turn(topic, due, followed)
                    if delivery is None and wait_for_turn:
                        self._wait(0.1)
                        continue
                    if delivery is None:
                        return sent, outage
                    sent += len(delivery.published)
                    outage = delivery.error or outage
                    followed = delivery.published
                    if delivery.error:
                        break
                    if not (delivery.published or delivery.parked):
                        del self._last_tried_pk[topic]
                        break
        except (KafkaUnreachable, Error) as error:
            connection.close()
            outage = error
        return sent, outage

    def _topics(self, due: datetime) -> list[str]:
        """Return the topics with sendable rows that were recorded up to and including `due`.

        If there is such a topic, connect the producer unless it is connected. Raises KafkaUnreachable if this fails.
        """
        pending = OutboxEvent.objects.sendable().filter(OutboxQuerySet.recorded_by(due))
        topics = list(pending.order_by().values_list("topic", flat=True).distinct())
        if topics and self._producer is None:
            self._producer = self._connect()
        return topics

    def _take_turn(self, topic: str, due: datetime, followed: list[Message]) -> Delivery | None:
        """Send one batch of the topic's rows that were recorded up to and including `due`.

        Return None if another relay has the turn.

        `followed` has the messages that this relay has just published. Rows of their streams are sent at any age.
        """
        assert self._producer is not None
        with transaction.atomic(), connection.cursor() as cursor:
            # Set the timeouts before taking the lock, so that a process that freezes while it holds the lock loses it.
            cursor.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true),"
                " set_config('statement_timeout', %s, true)",
                [str(TURN_TIMEOUT_MS)] * 2,
            )
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [TURN_LOCK_ID])
            if not cursor.fetchone()[0]:
                return None
            streams = [message.stream for message in followed if message.stream is not None]
            is_due = OutboxQuerySet.recorded_by(due) | Q(stream__in=streams)
            rows = OutboxEvent.objects.sendable().filter(is_due, topic=topic)
            # Take rows behind the last wave first: rows of an unavailable partition must not delay the topic's other
            # rows. At the end, start again from the oldest row, because the next row of a stream may have a lower id.
            wave = self._select_wave(rows.filter(pk__gt=self._last_tried_pk.get(topic, 0))) or self._select_wave(rows)
            self._last_tried_pk[topic] = wave[-1].pk if wave else 0
            return deliver([row.message for row in wave], producer=self._producer, path=OutboxEvent.Path.RELAY)

    def _select_wave(self, rows: OutboxQuerySet) -> list[OutboxEvent]:
        """Return the oldest of `rows` that fit into one batch.

        Rows that are too large are parked, which means that they are never sent. Their messages are not loaded.
        """
        oldest = rows.oldest(max_row_bytes=MAX_MESSAGE_BYTES)
        for row in OutboxEvent.objects.filter(pk__in=oldest.too_large).only("event_id", "event_type", "topic"):
            size = oldest.too_large[row.pk]
            park(row, reason=f"Its {size} bytes are larger than the {MAX_MESSAGE_BYTES} that a message may have")
        return self._select_wave(rows) if oldest.too_large and not oldest.rows else oldest.rows

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
