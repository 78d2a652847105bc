"""`manage.py consume GROUP`: run a member of a registered consumer group."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.consuming import running
from events.subscriptions import UnknownGroup, subscription, subscriptions


class Command(BaseCommand):
    help = (
        "Consume the topic of a registered group until SIGTERM or SIGINT. Any number of consumers of a group may run; "
        "they share the partitions."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("group", nargs="?", help="the consumer group, as an app's subscriptions.py registers it")
        parser.add_argument("--list", action="store_true", help="print the registered groups and their topics, and end")
        running.add_arguments(parser)

    def handle(self, *args: Any, group: str | None, **options: Any) -> None:
        if options["list"]:
            for one in subscriptions():
                self.stdout.write(f"{one.group}  {one.topic.name}  {', '.join(sorted(one.wanted))}")
            return
        if group is None:
            raise CommandError("Name a group, as in `manage.py consume loyalty`; --list shows the registered ones.")
        try:
            wanted = subscription(group)
        except UnknownGroup as error:
            raise CommandError(str(error)) from error
        running.run(wanted, **{name: options[name] for name in running.OPTIONS})
