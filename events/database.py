"""What the long-running commands ask of the database before they start."""

from django.core.management import CommandError
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.template.defaultfilters import pluralize

NAMED_MIGRATIONS = 3


def require_database() -> None:
    """Raises CommandError, one clear line, where the database does not answer or lacks migrations.

    Later outages are waited out instead.
    """
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Error as error:
        raise CommandError(f"The database does not answer, check DATABASE_URL: {str(error).strip()}") from error
    if missing:
        names = ", ".join(str(migration) for migration, _ in missing[:NAMED_MIGRATIONS])
        more = " ..." if len(missing) > NAMED_MIGRATIONS else ""
        lacks = f"{len(missing)} migration{pluralize(len(missing))} ({names}{more})"
        raise CommandError(f"The database lacks {lacks}: run `manage.py migrate`.")
