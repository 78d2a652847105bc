"""Create and check the registered topics, with the partitions and replication of the settings."""

from django.conf import settings
from django.template.defaultfilters import pluralize

from events.kafka import MAX_MESSAGE_BYTES
from events.kafka.cluster import count_partitions, create_topic
from events.subscriptions import dead_letter_topic, subscriptions, topics


class TopicUnfit(Exception):
    """A topic is missing or has too few partitions.

    Only a person may add partitions, because later records of a key may then go to another partition.
    """


def create_missing_topics() -> dict[str, bool]:
    """Create the registered topics that are missing. Return for each topic's name whether it was created.

    Every topic that a group reads also gets a topic for its dead letters.

    Raises:
        KafkaUnreachable: no broker answered.
        TopicUnfit: a topic has fewer partitions than configured. More are accepted.
        KafkaError: the broker refused a request.
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
    """Raise TopicUnfit if the topic is missing or has too few partitions, KafkaUnreachable if Kafka does not answer."""
    partitions = count_partitions(name)
    if partitions == 0:
        raise TopicUnfit(f"Topic {name} does not exist: run `manage.py create_topics`.")
    if partitions < settings.KAFKA_TOPIC_PARTITIONS:
        raise TopicUnfit(
            f"Topic {name} has {partitions} partition{pluralize(partitions)}, KAFKA_TOPIC_PARTITIONS asks for "
            f"{settings.KAFKA_TOPIC_PARTITIONS}. Lower the setting, or add partitions with Kafka's own tools once "
            "all its events are handled."
        )
