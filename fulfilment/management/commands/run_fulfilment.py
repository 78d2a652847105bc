"""`manage.py run_fulfilment`: call payment provider and carrier, and watch deadlines, until SIGTERM or SIGINT."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from events.work import running
from events.work.kinds import kind_named

KINDS = ("payments", "shipping", "fulfilment_deadlines")
"""Names of the kinds of leased work that the command does: calls of the payment provider, calls of the carrier, and the
deadlines of the commands to both."""


class Command(BaseCommand):
    help = (
        "Call the payment provider and the carrier, and watch the deadlines of fulfilments, until SIGTERM or SIGINT. "
        "Any number of these processes may run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        running.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        results = running.run(*map(kind_named, KINDS), **{name: options[name] for name in running.OPTIONS})
        if options["once"]:
            running.report(results, self.stdout, verb="done")
