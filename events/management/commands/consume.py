"""`manage.py consume GROUP`: run a member of a registered consumer group, or of several."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.consuming import running
from events.subscriptions import UnknownGroup, subscription, subscriptions


class Command(BaseCommand):
    help = (
        "Consume the topic of a registered group until SIGTERM or SIGINT. Any number of consumers of a group may run; "
        "they share the partitions. Several groups run in one process as threads, which saves memory; if one of them "
        "cannot go on, the process ends."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "groups", nargs="*", metavar="group", help="a consumer group, as an app's subscriptions.py registers it"
        )
        parser.add_argument("--list", action="store_true", help="print the registered groups and their topics, and end")
        running.add_arguments(parser)

    def handle(self, *args: Any, groups: list[str], **options: Any) -> None:
        if options["list"]:
            for one in subscriptions():
                self.stdout.write(f"{one.group}  {one.topic.name}  {', '.join(sorted(one.wanted))}")
            return
        if not groups:
            raise CommandError("Name a group, as in `manage.py consume loyalty`; --list shows the registered ones.")
        try:
            wanted = [subscription(group) for group in dict.fromkeys(groups)]
        except UnknownGroup as error:
            raise CommandError(str(error)) from error
        running.run(*wanted, **{name: options[name] for name in running.OPTIONS})
