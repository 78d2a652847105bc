"""What the long-running commands ask of the database before they start."""

from django.core.management import CommandError
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor


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
        names = ", ".join(str(migration) for migration, _ in missing[:3])
        raise CommandError(f"The database lacks {len(missing)} migrations ({names} ...): run `manage.py migrate`.")
