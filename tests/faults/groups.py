"""The state of consumer groups, read with a different client library from the product's."""

import os

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from testkit.kafka_client import TIMEOUT_S

GROUP = "notification-consumer-group"


def shares(group: str = GROUP) -> list[set[int]]:
    """Return the partitions of each member; an empty list during a rebalance, or while Kafka does not answer."""
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    try:
        described = admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)
    except KafkaException:
        return []
    if described.state is not ConsumerGroupState.STABLE:
        return []
    return [{one.partition for one in member.assignment.topic_partitions} for member in described.members]
