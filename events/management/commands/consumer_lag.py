"""`manage.py consumer_lag`: show the lag of consumer groups."""

import json
import os
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.management.color import no_style

from events.kafka import KafkaUnreachable
from events.kafka.lag import group_lag
from events.observing.lag_report import COLUMNS, Row, clock, screen, table
from events.process.shutdown import Shutdown
from events.subscriptions import UnknownGroup, subscription, subscriptions
from events.wire.timestamps import now

WATCH_INTERVAL_S = 2
CLEAR_SCREEN = "\x1b[2J\x1b[H"


class Command(BaseCommand):
    help = "Show, per partition, how far consumer groups are behind."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", help="one consumer group; without it, every registered group")
        parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
        parser.add_argument(
            "--watch",
            action="store_true",
            help="repeat it every two seconds until SIGTERM or SIGINT; on a terminal with a clock, totals and colours, "
            "or without colours if NO_COLOR is set",
        )

    def handle(self, *args: Any, group: str | None, watch: bool, **options: Any) -> None:
        # With --group there is no column for the group, because every row would have the same name.
        columns = COLUMNS if group else ("group", *COLUMNS)
        if watch:
            self._watch(group, columns, as_json=options["json"])
        else:
            self.stdout.write(_report(_rows(group), columns, as_json=options["json"]))

    def _watch(self, group: str | None, columns: Sequence[str], *, as_json: bool) -> None:
        on_screen = self.stdout.isatty() and not as_json
        # Django knows --no-color, but not the variable of https://no-color.org.
        style = no_style() if os.environ.get("NO_COLOR") else self.style
        shutdown = Shutdown()
        while not shutdown.requested():
            try:
                rows = _rows(group)
            except CommandError as error:
                # Kafka may come back while the user watches.
                if on_screen:
                    self.stdout.write(f"{CLEAR_SCREEN}{clock(now())}\n\n{style.ERROR(str(error))}")
                else:
                    self.stderr.write(str(error))
            else:
                if on_screen:
                    self.stdout.write(CLEAR_SCREEN + screen(rows, columns=columns, at=now(), style=style))
                else:
                    self.stdout.write(_report(rows, columns, as_json=as_json))
            self.stdout.flush()
            shutdown.wait(WATCH_INTERVAL_S)


def _rows(group: str | None) -> list[Row]:
    """Return a row for each partition of `group`, or of all registered groups.

    Raises CommandError if Kafka does not answer.
    """
    try:
        return [
            {"group": name, **dict(zip(COLUMNS, one, strict=True))}
            for name, topic in _groups(group)
            for one in group_lag(topic=topic, group=name)
        ]
    except KafkaUnreachable as error:
        raise CommandError(str(error)) from error


def _report(rows: list[Row], columns: Sequence[str], *, as_json: bool) -> str:
    if as_json:
        return json.dumps([{column: row[column] for column in columns} for row in rows])
    return table(rows, columns=columns)


def _groups(group: str | None) -> list[tuple[str, str]]:
    """Return pairs of group and topic: those of all subscriptions if `group` is None, else those of `group`.

    An unregistered group is looked up on every topic that has a subscription.
    """
    if group is None:
        return [(one.group, one.topic.name) for one in subscriptions()]
    try:
        return [(group, subscription(group).topic.name)]
    except UnknownGroup:
        return [(group, topic) for topic in sorted({one.topic.name for one in subscriptions()})]
