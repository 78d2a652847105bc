"""`manage.py consumer_lag`: show the lag of consumer groups."""

import json
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.kafka import KafkaUnreachable
from events.kafka.lag import group_lag
from events.process.shutdown import Shutdown
from events.subscriptions import UnknownGroup, subscription, subscriptions

COLUMNS = ("topic", "partition", "currentOffset", "endOffset", "lag", "secondsBehind")
Row = dict[str, str | int | float | None]
CLEAR_SCREEN = "\x1b[2J\x1b[H"


class Command(BaseCommand):
    help = "Show, per partition, how far consumer groups are behind."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", help="one consumer group; without it, every registered group")
        parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
        parser.add_argument("--watch", action="store_true", help="print it again every two seconds")

    def handle(self, *args: Any, group: str | None, watch: bool, **options: Any) -> None:
        if not watch:
            self.stdout.write(self._report(group, as_json=options["json"]))
            return
        shutdown = Shutdown()
        while not shutdown.requested():
            try:
                report = self._report(group, as_json=options["json"])
            except CommandError as error:
                # Kafka may come back while the user watches.
                self.stderr.write(str(error))
            else:
                self.stdout.write(CLEAR_SCREEN + report if self.stdout.isatty() and not options["json"] else report)
            self.stdout.flush()
            shutdown.wait(2)

    def _report(self, group: str | None, *, as_json: bool) -> str:
        try:
            rows: list[Row] = [
                {"group": name, **dict(zip(COLUMNS, one, strict=True))}
                for name, topic in _groups(group)
                for one in group_lag(topic=topic, group=name)
            ]
        except KafkaUnreachable as error:
            raise CommandError(str(error)) from error
        if group is not None:
            # With --group the group's name would be the same in every row.
            rows = [{column: row[column] for column in COLUMNS} for row in rows]
        return json.dumps(rows) if as_json else _table(rows, columns=COLUMNS if group else ("group", *COLUMNS))


def _groups(group: str | None) -> list[tuple[str, str]]:
    """Return pairs of group and topic. An unregistered group is looked up on every topic that has a subscription."""
    if group is None:
        return [(one.group, one.topic.name) for one in subscriptions()]
    try:
        return [(group, subscription(group).topic.name)]
    except UnknownGroup:
        return [(group, topic) for topic in sorted({one.topic.name for one in subscriptions()})]


def _table(rows: list[Row], *, columns: Sequence[str]) -> str:
    cells = [list(columns)] + [["-" if row[name] is None else str(row[name]) for name in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )
