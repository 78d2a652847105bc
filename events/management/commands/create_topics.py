"""`manage.py create_topics`: create the topics that are missing."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from events.kafka import KafkaError, KafkaUnreachable
from events.kafka.topics import TopicUnfit, create_missing_topics


class Command(BaseCommand):
    help = "Create the topics that are missing, with KAFKA_TOPIC_PARTITIONS and KAFKA_TOPIC_REPLICATION."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for name, created in create_missing_topics().items():
                self.stdout.write(f"{name}: {'created' if created else 'exists'}")
        except (KafkaUnreachable, TopicUnfit, KafkaError) as error:
            raise CommandError(str(error)) from error
