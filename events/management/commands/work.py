"""`manage.py work KIND`: run a worker of a registered kind of leased work (`events.work`), or of several."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.work import running
from events.work.kinds import UnknownKind, kind_named
from events.work.kinds import kinds as registered_kinds


class Command(BaseCommand):
    help = (
        "Do the leased work of a registered kind until SIGTERM or SIGINT. Any number of workers of a kind may run. "
        "Several kinds run in one process as threads."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("kinds", nargs="*", metavar="kind", help="a kind of work, as an app's work.py registers it")
        parser.add_argument("--list", action="store_true", help="print the registered kinds and their tables, and end")
        running.add_arguments(parser)

    def handle(self, *args: Any, kinds: list[str], **options: Any) -> None:
        if options["list"]:
            for one in registered_kinds():
                self.stdout.write(f"{one.name}  {one.model._meta.db_table}")
            return
        if not kinds:
            raise CommandError("Name a kind, as in `manage.py work email`; --list shows the registered ones.")
        try:
            wanted = [kind_named(name) for name in dict.fromkeys(kinds)]
        except UnknownKind as error:
            raise CommandError(str(error)) from error
        results = running.run(*wanted, **{name: options[name] for name in running.OPTIONS})
        if options["once"]:
            running.report(results, self.stdout, verb="done")
