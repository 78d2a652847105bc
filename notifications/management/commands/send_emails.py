"""`manage.py send_emails`: send the e-mails of notifications."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from events.work import running
from notifications.work import EMAIL


class Command(BaseCommand):
    help = "Send the e-mails of notifications until SIGTERM or SIGINT. Any number of senders may run."

    def add_arguments(self, parser: CommandParser) -> None:
        running.add_arguments(parser)

    def handle(self, *args: Any, once: bool, **options: Any) -> None:
        if not settings.EMAIL_ENABLED:
            self.stderr.write("EMAIL_URL is not set, so notifications get no e-mails: set it to a mail server.")
        kinds = [EMAIL] if settings.EMAIL_ENABLED else []
        results = running.run(*kinds, once=once, **{name: options[name] for name in running.OPTIONS if name != "once"})
        if once:
            running.report(results, self.stdout, verb="sent")
