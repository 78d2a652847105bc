"""What stands before the processes start: the database's schema, topics, accounts, and events that a broker forgot."""

import io
from collections.abc import Container
from pathlib import Path

import django
from django.apps import apps
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from commerce.devserver.run.messages import say, troubles_end_the_run
from commerce.devserver.run.surroundings import CHECKOUT, KAFKA, POSTGRESQL


def prepare_database_and_topics(servers: Container[str]) -> None:
    say("Migrating the database, creating topics and demo accounts")
    django.setup()
    try:
        # A database that DATABASE_URL names is the user's own, and not for `make reset` to drop.
        with troubles_end_the_run(data_are_ours=POSTGRESQL in servers):
            _refuse_newer_database()
            call_command("migrate", verbosity=0)
            if KAFKA in servers:
                _forget_the_broker_before()
            if settings.DEBUG:
                call_command("create_demo_accounts")
        with troubles_end_the_run(data_are_ours=False):
            call_command("create_topics", stdout=io.StringIO())
            # What was on its way when the last run ended is not on a broker that starts empty.
            repair_lost_events()
    finally:
        connection.close()


def _refuse_newer_database() -> None:
    """Raises CommandError where newer code has migrated the database: it may forbid what this code writes."""
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    ours = {app.label for app in apps.get_app_configs() if Path(app.path).resolve().parent == CHECKOUT}
    unknown = sorted(
        f"{app}.{name}"
        for app, name in MigrationRecorder(connection).applied_migrations()
        if app in ours and (app, name) not in known
    )
    if unknown:
        raise CommandError(f"newer code has migrated this database, and this code does not know {', '.join(unknown)}.")


def _forget_the_broker_before() -> None:
    """The embedded broker starts empty, so that what the database says of records at its offsets holds no longer."""
    # Models can be imported once Django is set up.
    from events.consuming import dead_letter_limit, quarantine

    dead_letter_limit.reset_all()
    quarantine.delete_all_marks()


def repair_lost_events() -> None:
    report = io.StringIO()
    try:
        call_command("reconcile_events", repair=True, stdout=report, stderr=report)
    except CommandError:
        # An order that cannot be repaired is named in the report, and the others are served. No report: it failed.
        if not report.getvalue():
            raise
    if not report.getvalue().startswith("missing 0,"):
        say(f"Lost events are sent again: {report.getvalue().strip()}")
