"""`manage.py dismiss_dead_letters`: close a group's dead letters without handling their messages."""

from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, reset_queries, transaction

from events.consuming.dead_letters import NotOpen, dismiss
from events.consuming.replay import describe, open_letters, preview
from events.database import require_database
from events.process.shutdown import Shutdown

COMMAND_LINE = "command line"
"""Name of the account in the log entries without --user. A user cannot register it, because it has a space."""


class Command(BaseCommand):
    help = (
        "Close the open dead letters of a consumer group for good, without handling their messages. Each dismissal "
        "is logged, as in admin."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--group", required=True, help="only letters of this consumer group")
        parser.add_argument("--event-type", help="only letters of this type, such as ORDER_CREATED")
        parser.add_argument(
            "--user", help=f"account for the log entries (default: {COMMAND_LINE!r}, an account without a login)"
        )
        parser.add_argument("--dry-run", action="store_true", help="change nothing, and list what would be dismissed")

    def handle(
        self, *args: Any, group: str, event_type: str | None, user: str | None, dry_run: bool, **options: Any
    ) -> None:
        shutdown = Shutdown()
        require_database()
        dismissed = 0
        try:
            account = None if dry_run else _account(user)
            for letter_id in open_letters(group=group, event_type=event_type):
                if shutdown.requested():
                    break
                reset_queries()  # With DEBUG on, Django keeps every statement.
                if account is None:
                    self.stdout.write(describe(preview(letter_id=letter_id).letter))
                elif not _dismiss_on_record(letter_id, account):
                    continue
                dismissed += 1
        except Error as error:
            raise CommandError(f"The database failed, run it again for the rest: {str(error).strip()}") from error
        finally:
            self.stdout.write(f"{'would dismiss' if dry_run else 'dismissed'} {dismissed}")


def _account(name: str | None) -> User:
    """Return the account with this name. If `name` is None, return the account `COMMAND_LINE`, created if missing.

    Raises CommandError if there is no account with this name.
    """
    if name is None:
        # The account has no password, so that no user can log in with it.
        account, _ = User.objects.get_or_create(username=COMMAND_LINE, defaults={"is_active": False, "password": "!"})
        return account
    try:
        return User.objects.get(username=name)
    except User.DoesNotExist:
        raise CommandError(f"There is no account {name}: name one of admin's users, or leave out --user.") from None


def _dismiss_on_record(letter_id: int, account: User) -> bool:
    """Dismiss the dead letter, and add a log entry for `account`. Return False if the letter is already closed."""
    try:
        with transaction.atomic():
            letter = dismiss(letter_id=letter_id)
            LogEntry.objects.log_actions(account.pk, [letter], CHANGE, "Dismissed.", single_object=True)
    except NotOpen:
        return False
    return True
