"""`manage.py create_demo_accounts`: create a customer and a superuser for development."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from commerce.accounts import demo_accounts


class Command(BaseCommand):
    help = "Create demo / demo-password (a customer) and admin / admin-password (a superuser), in development only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--restore", action="store_true", help="reset the passwords and rights of accounts that were changed"
        )

    def handle(self, *args: Any, restore: bool, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("Demo accounts have well-known passwords and exist only if DJANGO_DEBUG is on.")
        if restore:
            demo_accounts.restore()
        else:
            demo_accounts.create()
