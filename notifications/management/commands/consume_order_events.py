"""`manage.py consume_order_events`: turn order events into notifications."""

from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from events.consuming import running
from notifications.subscriptions import NOTIFICATIONS


class Command(BaseCommand):
    help = (
        "Consume the topic order-events and save a notification for every event, until SIGTERM or SIGINT. "
        "Any number of consumers may run. They share the partitions."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", default=NOTIFICATIONS.group, help="consumer group")
        running.add_arguments(parser)

    def handle(self, *args: Any, group: str, **options: Any) -> None:
        running.run(replace(NOTIFICATIONS, group=group), **{name: options[name] for name in running.OPTIONS})
