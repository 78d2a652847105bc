"""`manage.py prune_idempotency_keys`: delete the expired idempotency keys."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from events.database import require_database
from orders.idempotency import prune_keys


class Command(BaseCommand):
    help = "Delete idempotency keys that are older than 24 hours. A client may use such a key again in any case."

    def handle(self, *args: Any, **options: Any) -> None:
        require_database()
        pruned = 0
        try:
            for removed in prune_keys():
                pruned += removed
        except Error as error:
            raise CommandError(f"The database failed. Run it again for the rest: {str(error).strip()}") from error
        finally:
            self.stdout.write(f"pruned {pruned}")
