"""The topics this system needs, as settings describe them."""

from django.conf import settings
from django.template.defaultfilters import pluralize

from events.consuming.dead_letters import dead_letter_topic
from events.kafka import MAX_MESSAGE_BYTES
from events.kafka.cluster import count_partitions, create_topic


class TopicUnfit(Exception):
    """A topic is missing, or has fewer partitions than configured. Adding some moves keys, so a person decides."""


def create_missing_topics() -> dict[str, bool]:
    """Create what is missing; by name, whether it was.

    Raises:
        KafkaUnreachable: as for every client.
        TopicUnfit: a topic exists with fewer partitions than configured; more is fine.
        KafkaError: the broker refused.
    """
    dead_letters = dead_letter_topic(settings.ORDER_EVENTS_TOPIC)
    created = {}
    for name in (settings.ORDER_EVENTS_TOPIC, dead_letters, settings.NOTIFICATION_EVENTS_TOPIC):
        created[name] = create_topic(
            name,
            partitions=settings.KAFKA_TOPIC_PARTITIONS,
            replication=settings.KAFKA_TOPIC_REPLICATION,
            max_message_bytes=MAX_MESSAGE_BYTES if name == dead_letters else None,
        )
        require_topic(name)
    return created


def require_topic(name: str) -> None:
    """Raises TopicUnfit where it is missing or smaller than configured, KafkaUnreachable without an answer."""
    partitions = count_partitions(name)
    if partitions == 0:
        raise TopicUnfit(f"Topic {name} does not exist: run `manage.py create_topics`.")
    if partitions < settings.KAFKA_TOPIC_PARTITIONS:
        raise TopicUnfit(
            f"Topic {name} has {partitions} partition{pluralize(partitions)}, KAFKA_TOPIC_PARTITIONS asks for "
            f"{settings.KAFKA_TOPIC_PARTITIONS}. Lower the setting, or add partitions with Kafka's own tools once "
            "its events are worked off."
        )
