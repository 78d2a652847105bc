"""`manage.py consume_order_events`: turn the events of orders into notifications."""

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.consuming.consumer import EventConsumer
from events.consuming.dead_letter_limit import TooManyDeadLetters, require_below_limit
from events.database import require_database
from events.kafka import Consumer, KafkaError, KafkaRefuses, KafkaUnreachable, ReadingFailed
from events.kafka.lag import CaughtUp
from events.kafka.topics import TopicUnfit, require_topic
from events.observing import exposition as observability
from events.observing.progress import ProgressLine
from events.process.arguments import positive
from events.process.garbage import collect_seldom
from events.process.shutdown import Shutdown
from notifications.handlers import NotificationHandler
from orders.events import ORDER_EVENT_TYPES

logger = logging.getLogger(__name__)

EXIT_AT_LIMIT = 3
"""Exit code at the limit of dead letters in a row, by contract."""

Client = TypeVar("Client")


class Command(BaseCommand):
    help = (
        "Consume the topic order-events and save a notification for every event, until SIGTERM or SIGINT. "
        "Any number of consumers may run; they share the partitions."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", default=settings.NOTIFICATION_CONSUMER_GROUP, help="consumer group")
        parser.add_argument("--batch-size", type=positive, default=500, help="events saved in one transaction, at most")
        parser.add_argument(
            "--until-caught-up",
            action="store_true",
            help="end once the group has worked off what stands on the topic now",
        )
        parser.add_argument(
            "--max-consecutive-dead-letters",
            type=positive,
            default=1000,
            help="end with 3 when the group has made so many in a row: nothing seems to fit any more",
        )
        observability.add_arguments(parser)

    def handle(
        self,
        *args: Any,
        group: str,
        batch_size: int,
        until_caught_up: bool,
        max_consecutive_dead_letters: int,
        metrics_port: int | None,
        liveness_file: Path | None,
        **options: Any,
    ) -> None:
        shutdown = Shutdown()
        topic = settings.ORDER_EVENTS_TOPIC
        require_database()
        collect_seldom()
        with ExitStack() as cleanup:
            try:
                alive = cleanup.enter_context(
                    observability.observed(metrics_port=metrics_port, liveness_file=liveness_file, group=group)
                )
                require_below_limit(group=group, limit=max_consecutive_dead_letters)

                rewrite_progress = self._progress_line(group, cleanup)

                def stop_requested() -> bool:
                    alive()
                    rewrite_progress()
                    return shutdown.requested()

                consumer = self._wait_for_kafka(lambda: self._join(topic, group, batch_size), stop_requested, shutdown)
                if consumer is None:
                    return
                cleanup.callback(consumer.close)
                conditions: list[Callable[[], bool]] = [stop_requested]
                if until_caught_up:
                    caught_up = self._wait_for_kafka(
                        lambda: CaughtUp(topic=topic, group=group), stop_requested, shutdown
                    )
                    if caught_up is None:
                        return
                    cleanup.callback(caught_up.close)
                    conditions.append(caught_up)
                EventConsumer(
                    source=consumer,
                    handler=NotificationHandler(),
                    group=group,
                    stopping=lambda: any(condition() for condition in conditions),
                    max_consecutive_dead_letters=max_consecutive_dead_letters,
                    event_types=ORDER_EVENT_TYPES,
                ).run()
            except TopicUnfit as error:
                raise CommandError(str(error)) from error
            except TooManyDeadLetters as error:
                raise CommandError(str(error), returncode=EXIT_AT_LIMIT) from error
            except (KafkaError, ReadingFailed) as error:
                raise CommandError(f"Consuming {topic} failed, start again: {error}") from error
        logger.info("Stopped cleanly")

    def _progress_line(self, group: str, cleanup: ExitStack) -> Callable[[], None]:
        """For people; a log file stays as quiet as it is."""
        if not sys.stderr.isatty():
            return lambda: None
        line = ProgressLine(terminal=sys.stderr, group=group)
        cleanup.callback(line.end)
        return line.rewrite

    def _join(self, topic: str, group: str, batch_size: int) -> Consumer:
        require_topic(topic)
        consumer = Consumer(topic=topic, group=group, batch_size=batch_size)
        logger.info("Consuming %s as %s", topic, group)
        return consumer

    def _wait_for_kafka(
        self, connect: Callable[[], Client], stopping: Callable[[], bool], shutdown: Shutdown
    ) -> Client | None:
        """What `connect` makes, as soon as Kafka answers; None when told to stop meanwhile."""
        waiting = False
        while not stopping():
            try:
                return connect()
            except KafkaRefuses as error:
                raise CommandError(str(error)) from error
            except KafkaUnreachable as error:
                if not waiting:
                    logger.warning("Waiting for Kafka: %s", error)
                waiting = True
                shutdown.wait(1)
        return None
