"""`manage.py consumer_lag`: how far consumer groups are behind."""

import json
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.kafka import KafkaUnreachable
from events.kafka.lag import group_lag
from events.process.shutdown import Shutdown
from events.subscriptions import UnknownGroup, subscription, subscriptions

COLUMNS = ("group", "topic", "partition", "currentOffset", "endOffset", "lag", "secondsBehind")
Rows = Sequence[tuple[str | int | float | None, ...]]
CLEAR_SCREEN = "\x1b[2J\x1b[H"


class Command(BaseCommand):
    help = "Show, per partition, how far consumer groups are behind."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", help="one consumer group; without it, every registered group")
        parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
        parser.add_argument("--watch", action="store_true", help="show it anew every two seconds")

    def handle(self, *args: Any, group: str | None, watch: bool, **options: Any) -> None:
        if not watch:
            self.stdout.write(self._report(group, as_json=options["json"]))
            return
        shutdown = Shutdown()
        while not shutdown.requested():
            try:
                report = self._report(group, as_json=options["json"])
            except CommandError as error:
                # The watcher wants to see it come back.
                self.stderr.write(str(error))
            else:
                self.stdout.write(CLEAR_SCREEN + report if self.stdout.isatty() and not options["json"] else report)
            self.stdout.flush()
            shutdown.wait(2)

    def _report(self, group: str | None, *, as_json: bool) -> str:
        try:
            rows = [(name, *one) for name, topic in _groups(group) for one in group_lag(topic=topic, group=name)]
        except KafkaUnreachable as error:
            raise CommandError(str(error)) from error
        return _json(rows) if as_json else _table(rows)


def _groups(group: str | None) -> list[tuple[str, str]]:
    """Return groups with their topics. A group that no app has registered is looked for on every topic that is read."""
    if group is None:
        return [(one.group, one.topic.name) for one in subscriptions()]
    try:
        return [(group, subscription(group).topic.name)]
    except UnknownGroup:
        return [(group, topic) for topic in sorted({one.topic.name for one in subscriptions()})]


def _json(rows: Rows) -> str:
    return json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows])


def _table(rows: Rows) -> str:
    cells = [COLUMNS] + [tuple("-" if value is None else str(value) for value in row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
