"""The consumer process: its command-line options, its start and its end."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from django.core.management.base import CommandError, CommandParser

from events.consuming.consumer import DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS, EventConsumer
from events.consuming.dead_letter_limit import TooManyDeadLetters, require_below_limit
from events.database import require_database
from events.kafka import Consumer, KafkaError, KafkaRefuses, KafkaUnreachable, ReadingFailed
from events.kafka.lag import CaughtUp
from events.kafka.reading_ahead import ReadAhead
from events.kafka.topics import TopicUnfit, require_topic
from events.observing import exposition
from events.observing.readings import PipelineCollector
from events.process.arguments import positive
from events.process.garbage import reduce_garbage_collection
from events.process.shutdown import Shutdown
from events.process.together import Heartbeats, run_together
from events.subscriptions import Subscription

logger = logging.getLogger(__name__)

EXIT_AT_LIMIT = 3
"""Exit code at the limit of consecutive dead letters, as documented for supervisors."""

OPTIONS = ("batch_size", "until_caught_up", "max_consecutive_dead_letters", "metrics_port", "liveness_file")
"""Names of the options that `add_arguments` adds and `run` takes."""

Client = TypeVar("Client")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=500,
        help="events saved in one transaction, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--until-caught-up",
        action="store_true",
        help="end once the group has handled everything that is on the topic now",
    )
    parser.add_argument(
        "--max-consecutive-dead-letters",
        type=positive,
        default=DEFAULT_MAX_CONSECUTIVE_DEAD_LETTERS,
        help="end with exit code 3 when the group has made this many dead letters in a row (default: %(default)s)",
    )
    exposition.add_arguments(parser)


def run(
    *subscriptions: Subscription[Any],
    batch_size: int,
    until_caught_up: bool,
    max_consecutive_dead_letters: int,
    metrics_port: int | None,
    liveness_file: Path | None,
) -> None:
    """Consume for each subscription until SIGTERM or SIGINT, or with `until_caught_up` until its group has caught up.

    Each of several subscriptions gets a thread. If one of these threads cannot go on, all of them end.

    Raises CommandError if the process cannot start or cannot go on.
    """
    shutdown = Shutdown()
    require_database()
    reduce_garbage_collection()
    with exposition.observed(
        metrics_port=metrics_port,
        liveness_file=liveness_file,
        collector=PipelineCollector(lambda: subscriptions),
    ) as alive:
        heartbeats = Heartbeats(alive, [one.group for one in subscriptions])

        def member(subscription: Subscription[Any]) -> None:
            def stopping() -> bool:
                heartbeats.beat_of(subscription.group)
                return shutdown.requested()

            try:
                _consume(
                    subscription,
                    stopping=stopping,
                    shutdown=shutdown,
                    batch_size=batch_size,
                    until_caught_up=until_caught_up,
                    max_consecutive_dead_letters=max_consecutive_dead_letters,
                )
            finally:
                heartbeats.leave(subscription.group)

        run_together({one.group: partial(member, one) for one in subscriptions}, shutdown=shutdown)
    logger.info("Stopped cleanly")


def _consume(
    subscription: Subscription[Any],
    *,
    stopping: Callable[[], bool],
    shutdown: Shutdown,
    batch_size: int,
    until_caught_up: bool,
    max_consecutive_dead_letters: int,
) -> None:
    topic, group = subscription.topic.name, subscription.group
    try:
        with ExitStack() as cleanup:
            require_below_limit(group=group, limit=max_consecutive_dead_letters)
            consumer = _wait_for_kafka(lambda: _join(topic, group, batch_size), stopping, shutdown)
            if consumer is None:
                return
            cleanup.callback(consumer.close)
            conditions: list[Callable[[], bool]] = [stopping]
            if until_caught_up:
                caught_up = _wait_for_kafka(lambda: CaughtUp(topic=topic, group=group), stopping, shutdown)
                if caught_up is None:
                    return
                cleanup.callback(caught_up.close)
                conditions.append(caught_up)
            EventConsumer(
                source=consumer,
                subscription=subscription,
                stopping=lambda: any(condition() for condition in conditions),
                max_consecutive_dead_letters=max_consecutive_dead_letters,
            ).run()
    except TopicUnfit as error:
        raise CommandError(str(error)) from error
    except TooManyDeadLetters as error:
        raise CommandError(str(error), returncode=EXIT_AT_LIMIT) from error
    except (KafkaError, ReadingFailed) as error:
        raise CommandError(f"Consuming {topic} failed, start again: {error}") from error


def _join(topic: str, group: str, batch_size: int) -> ReadAhead:
    require_topic(topic)
    consumer = ReadAhead(Consumer(topic=topic, group=group, batch_size=batch_size))
    logger.info("Consuming %s as %s", topic, group)
    return consumer


def _wait_for_kafka(connect: Callable[[], Client], stopping: Callable[[], bool], shutdown: Shutdown) -> Client | None:
    """Wait until Kafka answers, and return the client that `connect` creates; None if the process must stop.

    Raises CommandError if Kafka refuses the connection.
    """
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
