"""`manage.py consume_order_events`: turn the events of orders into notifications."""

import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.consumer import EventConsumer
from events.database import require_database
from events.kafka import Consumer, KafkaError, KafkaUnreachable
from events.lag import CaughtUp
from events.shutdown import Shutdown
from events.topics import TopicTooSmall, require_topic
from notifications.handlers import NotificationHandler

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Consume the topic order-events and save a notification for every event, until SIGTERM or SIGINT. "
        "Any number of consumers may run; they share the partitions."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", default=settings.NOTIFICATION_CONSUMER_GROUP, help="consumer group")
        parser.add_argument("--batch-size", type=int, default=500, help="events saved in one transaction, at most")
        parser.add_argument(
            "--until-caught-up",
            action="store_true",
            help="end once the group has worked off what stands on the topic now",
        )

    def handle(self, *args: Any, group: str, batch_size: int, until_caught_up: bool, **options: Any) -> None:
        shutdown = Shutdown()
        topic = settings.ORDER_EVENTS_TOPIC
        require_database()
        consumer = self._join(topic, group, batch_size, shutdown)
        if consumer is None:
            return
        stopping = (
            _any(shutdown.requested, CaughtUp(topic=topic, group=group)) if until_caught_up else shutdown.requested
        )
        try:
            EventConsumer(source=consumer, handler=NotificationHandler(), group=group, stopping=stopping).run()
        except KafkaError as error:
            # After an exception out of poll() the client would spin for ever: only a new process reads on.
            raise CommandError(f"Reading {topic} failed, start again: {type(error).__name__}: {error}") from error
        finally:
            consumer.close()
        logger.info("Stopped cleanly")

    def _join(self, topic: str, group: str, batch_size: int, shutdown: Shutdown) -> Consumer | None:
        """Wait for Kafka as long as it takes; None when told to stop meanwhile."""
        waiting = False
        while not shutdown.requested():
            try:
                require_topic(topic)
                consumer = Consumer(topic=topic, group=group, batch_size=batch_size)
            except KafkaUnreachable as error:
                if not waiting:
                    logger.warning("Waiting for Kafka: %s", error)
                waiting = True
                shutdown.wait(1)
            except TopicTooSmall as error:
                raise CommandError(str(error)) from error
            else:
                logger.info("Consuming %s as %s", topic, group)
                return consumer
        return None


def _any(*conditions: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: any(condition() for condition in conditions)
