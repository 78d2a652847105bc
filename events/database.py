"""How commands use the database: they ask for it before they start, and walk through large tables in steps."""

from collections.abc import Iterator
from typing import Any

from django.core.management import CommandError
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Max, QuerySet
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


def in_steps(rows: QuerySet[Any], *, size: int) -> Iterator[list[int]]:
    """Walk through `rows`, oldest first: yield their primary keys, `size` at a time.

    Each step is a query of its own, so that the caller may change rows and commit in between. Rows that are inserted
    after the start are left out, so that the walk ends.
    """
    newest = rows.aggregate(newest=Max("pk"))["newest"] or 0
    oldest_first = rows.order_by("pk").values_list("pk", flat=True)
    last = 0
    while step := list(oldest_first.filter(pk__gt=last, pk__lte=newest)[:size]):
        yield step
        last = step[-1]
