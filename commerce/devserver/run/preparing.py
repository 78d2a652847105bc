"""Preparation before the processes start: migrations, topics, demo accounts, and repair of lost events."""

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
from django.template.defaultfilters import pluralize

from commerce.devserver.run.messages import cannot_run_on_errors, say
from commerce.devserver.run.surroundings import CHECKOUT, KAFKA, POSTGRESQL


def prepare_database_and_topics(servers: Container[str]) -> None:
    say("Migrating the database, creating topics and demo accounts")
    django.setup()
    try:
        # A database from DATABASE_URL belongs to the user, and `make reset` does not drop it.
        with cannot_run_on_errors(own_data=POSTGRESQL in servers):
            _refuse_newer_database()
            call_command("migrate", verbosity=0)
            if KAFKA in servers:
                _clear_state_of_earlier_broker()
            if settings.DEBUG:
                call_command("create_demo_accounts")
        with cannot_run_on_errors(own_data=False):
            call_command("create_topics", stdout=io.StringIO())
            # The embedded broker starts empty, so events that the last run did not handle must be sent again.
            repair_lost_events()
    finally:
        connection.close()


def _refuse_newer_database() -> None:
    """Raise CommandError if newer code has migrated the database. Such a database may reject what this code writes."""
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    ours = {app.label for app in apps.get_app_configs() if Path(app.path).resolve().parent == CHECKOUT}
    unknown = sorted(
        f"{app}.{name}"
        for app, name in MigrationRecorder(connection).applied_migrations()
        if app in ours and (app, name) not in known
    )
    if unknown:
        raise CommandError(f"newer code has migrated this database, and this code does not know {', '.join(unknown)}.")


def _clear_state_of_earlier_broker() -> None:
    """Delete the marks of messages that may kill a consumer, and reset the counts of consecutive dead letters.

    Both are about records that the new, empty broker does not have.
    """
    # Models can be imported only after django.setup().
    from events.consuming import dead_letter_limit, quarantine

    dead_letter_limit.reset_all()
    quarantine.delete_all_marks()


_named_problems: set[str] = set()
"""Printed sentences about orders whose events cannot be sent again. The run prints each of them once."""


def repair_lost_events() -> None:
    """Send lost events again. Name each order whose events cannot be sent again, and go on with the others.

    A message that this run has already printed is not printed again.

    Raises:
        CommandError: Kafka does not answer.
        django.db.Error: the database failed.
    """
    from commerce.operations.reconcile import find_missing, repair
    from events.kafka import KafkaUnreachable
    from events.subscriptions import subscriptions

    events = 0
    problems: list[str] = []
    try:
        for missing in find_missing(subscriptions()):
            repaired = repair(missing)
            events += repaired.events
            problems += [*missing.unknown, *repaired.refused.values()]
    except KafkaUnreachable as error:
        raise CommandError(str(error)) from error
    if events:
        say(f"Sending {events} lost event{pluralize(events)} again")
    for problem in problems:
        if problem not in _named_problems:
            say(problem)
            _named_problems.add(problem)
