"""The topics that the registry names, made as settings describe them."""

from django.conf import settings
from django.template.defaultfilters import pluralize

from events.kafka import MAX_MESSAGE_BYTES
from events.kafka.cluster import count_partitions, create_topic
from events.subscriptions import dead_letter_topic, subscriptions, topics


class TopicUnfit(Exception):
    """A topic is missing, or has fewer partitions than configured. Adding some moves keys, so a person decides."""


def create_missing_topics() -> dict[str, bool]:
    """Create the registered topics that are missing; return, by name, whether each was.

    A topic that a group reads gets a topic for its dead letters as well.

    Raises:
        KafkaUnreachable: as for every client.
        TopicUnfit: a topic exists with fewer partitions than configured; more is fine.
        KafkaError: the broker refused.
    """
    max_message_bytes: dict[str, int | None] = {}
    for topic in topics():
        max_message_bytes[topic.name] = None
        if subscriptions(topic.name):
            max_message_bytes[dead_letter_topic(topic.name)] = MAX_MESSAGE_BYTES
    created = {}
    for name, limit in max_message_bytes.items():
        created[name] = create_topic(
            name,
            partitions=settings.KAFKA_TOPIC_PARTITIONS,
            replication=settings.KAFKA_TOPIC_REPLICATION,
            max_message_bytes=limit,
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
