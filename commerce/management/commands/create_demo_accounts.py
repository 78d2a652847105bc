"""`manage.py create_demo_accounts`: a customer and a superuser to try things with."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from commerce.accounts import demo_accounts


class Command(BaseCommand):
    help = "Create demo / demo-password (a customer) and admin / admin-password (a superuser), in development only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--restore", action="store_true", help="give accounts that were changed their passwords and rights back"
        )

    def handle(self, *args: Any, restore: bool, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("Demo accounts have well-known passwords: they exist only where DJANGO_DEBUG is on.")
        if restore:
            demo_accounts.restore()
        else:
            demo_accounts.create()
