"""`manage.py prune_logins`: delete refresh tokens, failed logins and request counts that have expired.

It also saves the folded name (see `commerce.accounts.names.fold`) of each account that has none.
"""

from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from commerce.accounts.names import save_missing_folded_names
from commerce.models import RequestCount
from events.database import require_database
from events.wire.timestamps import now


class Command(BaseCommand):
    help = (
        "Delete expired refresh tokens, failed logins older than the lockout, and request counts of past windows. Save "
        "the folded names of accounts that an earlier release created during a rollout."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        require_database()
        try:
            call_command("flushexpiredtokens")
            AccessAttempt.objects.filter(attempt_time__lte=now() - settings.AXES_COOLOFF_TIME).delete()
            RequestCount.objects.filter(ends_at__lte=now()).delete()
            save_missing_folded_names()
        except Error as error:
            raise CommandError(f"The database failed. Run it again for the rest: {str(error).strip()}") from error
