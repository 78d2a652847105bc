"""`manage.py consumer_lag`: how far the consumer group is behind."""

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.kafka import KafkaUnreachable
from events.kafka.lag import PartitionLag, group_lag
from events.process.shutdown import Shutdown

COLUMNS = ("topic", "partition", "currentOffset", "endOffset", "lag", "secondsBehind")
CLEAR_SCREEN = "\x1b[2J\x1b[H"


class Command(BaseCommand):
    help = "Show, per partition, how far a consumer group is behind."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", default=settings.NOTIFICATION_CONSUMER_GROUP)
        parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
        parser.add_argument("--watch", action="store_true", help="show it anew every two seconds")

    def handle(self, *args: Any, group: str, watch: bool, **options: Any) -> None:
        if not watch:
            self.stdout.write(self._report(group, as_json=options["json"]))
            return
        shutdown = Shutdown()
        while not shutdown.requested():
            try:
                report = self._report(group, as_json=options["json"])
            except CommandError as error:
                # Whoever watches wants to see it come back.
                self.stderr.write(str(error))
            else:
                self.stdout.write(CLEAR_SCREEN + report if self.stdout.isatty() and not options["json"] else report)
            self.stdout.flush()
            shutdown.wait(2)

    def _report(self, group: str, *, as_json: bool) -> str:
        try:
            rows = group_lag(topic=settings.ORDER_EVENTS_TOPIC, group=group)
        except KafkaUnreachable as error:
            raise CommandError(str(error)) from error
        return _json(rows) if as_json else _table(rows)


def _json(rows: list[PartitionLag]) -> str:
    return json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows])


def _table(rows: list[PartitionLag]) -> str:
    cells = [COLUMNS] + [tuple("-" if value is None else str(value) for value in row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
