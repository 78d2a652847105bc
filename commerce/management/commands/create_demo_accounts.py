"""`manage.py create_demo_accounts`: a customer and a superuser to try things with."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Create demo / demo-password (a customer) and admin / admin-password (a superuser), in development only."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("Demo accounts have well-known passwords: they exist only where DJANGO_DEBUG is on.")
        if not User.objects.filter(username="demo").exists():
            User.objects.create_user("demo", password="demo-password")
        if not User.objects.filter(username="admin").exists():
            User.objects.create_superuser("admin", password="admin-password")
