"""`manage.py prune_logins`: remove what logins have left behind, and complete the names of accounts."""

from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from commerce.accounts.names import keep_missing_names
from commerce.models import RequestCount
from events.database import require_database
from events.timestamps import now


class Command(BaseCommand):
    help = (
        "Remove refresh tokens that have expired, failed logins whose lock would be over, and counts of requests whose "
        "window is over. Keep the names of accounts that an older release made during a rollout."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        require_database()
        try:
            call_command("flushexpiredtokens")
            AccessAttempt.objects.filter(attempt_time__lte=now() - settings.AXES_COOLOFF_TIME).delete()
            RequestCount.objects.filter(ends_at__lte=now()).delete()
            keep_missing_names()
        except Error as error:
            raise CommandError(f"The database failed, run it again for the rest: {str(error).strip()}") from error
