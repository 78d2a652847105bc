"""The relay: send what the fast path did not. Any number may run; they take turns."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import Error, connection, reset_queries, transaction
from django.db.models import Q
from django.template.defaultfilters import pluralize

from events.database_clock import database_now
from events.kafka import MAX_MESSAGE_BYTES, KafkaRefuses, KafkaUnreachable, Producer
from events.messages import Message
from events.models import OutboxEvent, OutboxQuerySet
from events.outbox.delivery import Delivery, deliver, park

logger = logging.getLogger(__name__)

# The number only has to differ from other advisory locks of this database.
TURN_LOCK = 0x6F7574626F78
# A relay that is frozen, or whose connection is lost, loses its turn after this time.
TURN_TIMEOUT_MS = 8_000


class Relay:
    """Sends pending outbox rows, oldest first, topic by topic so that a topic that is missing holds up no other."""

    def __init__(
        self,
        *,
        stopping: Callable[[], bool],
        wait: Callable[[float], object],
        connect: Callable[[], Producer] = Producer,
    ) -> None:
        """`stopping` tells when to end; `wait` pauses for seconds; `connect` makes the producer when one is needed."""
        self._stopping = stopping
        self._wait = wait
        self._connect = connect
        self._producer: Producer | None = None
        self._behind: dict[str, int] = {}
        """By topic, the last row that was tried."""

    def run(self) -> None:
        """Sweep until stopping, through outages of Kafka and of the database.

        Raises KafkaRefuses, while it has not been let in yet.
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
                logger.warning("Events wait: %s", str(outage).strip())
            elif in_outage and not outage:
                logger.info("Events flow again")
            in_outage = outage is not None
            self._wait(settings.OUTBOX_RELAY_INTERVAL.total_seconds())

    def sweep(self, *, older_than: timedelta, wait_for_turn: bool = False) -> tuple[int, Exception | None]:
        """Send every sendable row of that age; how many were sent, and the last outage that kept some.

        Where another relay is at work it waits for its turn, or leaves the rest to that one.
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
                        del self._behind[topic]
                        break
        except (KafkaUnreachable, Error) as error:
            connection.close()
            outage = error
        return sent, outage

    def _topics(self, due: datetime) -> list[str]:
        """Topics with rows to send. Where there are some, a producer is needed, too. Raises KafkaUnreachable."""
        pending = OutboxEvent.objects.sendable().filter(OutboxQuerySet.recorded_by(due))
        topics = list(pending.order_by().values_list("topic", flat=True).distinct())
        if topics and self._producer is None:
            self._producer = self._connect()
        return topics

    def _take_turn(self, topic: str, due: datetime, followed: list[Message]) -> Delivery | None:
        """Send one wave of rows of that time or older, and of the direct followers of rows just published, whatever
        their age. None where another relay has the turn.
        """
        assert self._producer is not None
        with transaction.atomic(), connection.cursor() as cursor:
            # First, so that a process that is frozen with the lock in its hands loses it.
            cursor.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true),"
                " set_config('statement_timeout', %s, true)",
                [str(TURN_TIMEOUT_MS)] * 2,
            )
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [TURN_LOCK])
            if not cursor.fetchone()[0]:
                return None
            streams = [message.stream for message in followed if message.stream is not None]
            is_due = OutboxQuerySet.recorded_by(due) | Q(stream__in=streams)
            rows = OutboxEvent.objects.sendable().filter(is_due, topic=topic)
            # Behind the last wave: what was sent need not be looked at again, and if a partition is away, its rows
            # must not hold up the topic's others. Then once more from the start: followers may stand before.
            wave = self._choose(rows.filter(pk__gt=self._behind.get(topic, 0))) or self._choose(rows)
            self._behind[topic] = wave[-1].pk if wave else 0
            return deliver([row.message for row in wave], producer=self._producer, path=OutboxEvent.Path.RELAY)

    def _choose(self, rows: OutboxQuerySet) -> list[OutboxEvent]:
        """Return the oldest of `rows` that fit in a wave. What no topic takes is parked unread."""
        oldest = rows.oldest(max_row_bytes=MAX_MESSAGE_BYTES)
        for row in OutboxEvent.objects.filter(pk__in=oldest.too_large).only("event_id", "event_type", "topic"):
            size = oldest.too_large[row.pk]
            park(row, reason=f"Its {size} bytes are larger than the {MAX_MESSAGE_BYTES} that a message may have")
        return self._choose(rows) if oldest.too_large and not oldest.rows else oldest.rows

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
