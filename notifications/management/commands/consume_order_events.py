"""`manage.py consume_order_events`: turn order events into notifications."""

from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.consuming import running
from events.subscriptions import subscriptions
from notifications.subscriptions import NOTIFICATIONS


class Command(BaseCommand):
    help = (
        "Consume the topic order-events and save a notification for every event, until SIGTERM or SIGINT. "
        "Any number of consumers may run. They share the partitions."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", default=NOTIFICATIONS.group, help="consumer group (default: %(default)s)")
        running.add_arguments(parser)

    def handle(self, *args: Any, group: str, **options: Any) -> None:
        if group != NOTIFICATIONS.group and group in {one.group for one in subscriptions()}:
            raise CommandError(
                f"Group {group} has a subscription of its own, and this command would take its events from it. "
                f"Run `manage.py consume {group}`, or name a group that is not registered."
            )
        subscription = replace(NOTIFICATIONS, group=group, measures_latency=group == NOTIFICATIONS.group)
        running.run(subscription, **{name: options[name] for name in running.OPTIONS})
