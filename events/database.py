"""Database access of commands: a check before they start, and a walk through large tables in steps."""

from collections.abc import Callable, Iterator
from typing import Any

from django.core.management import CommandError
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Max, QuerySet
from django.template.defaultfilters import pluralize

MAX_MIGRATIONS_NAMED = 3

Report = Callable[[float], object]
"""A function that long work calls with the part that is done, from 0.0 to 1.0."""


def require_database() -> None:
    """Raise CommandError if the database does not answer or lacks migrations.

    Commands call it once at their start. Long-running commands retry after a later outage.
    """
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Error as error:
        raise CommandError(f"The database does not answer, check DATABASE_URL: {str(error).strip()}") from error
    if missing:
        names = ", ".join(str(migration) for migration, _ in missing[:MAX_MIGRATIONS_NAMED])
        more = " ..." if len(missing) > MAX_MIGRATIONS_NAMED else ""
        lacks = f"{len(missing)} migration{pluralize(len(missing))} ({names}{more})"
        raise CommandError(f"The database lacks {lacks}: run `manage.py migrate`.")


def in_steps(rows: QuerySet[Any], *, size: int, report: Report | None = None) -> Iterator[list[int]]:
    """Yield the primary keys of `rows` in ascending order, `size` at a time.

    Each list of keys, a step, comes from a separate query, so the caller may change rows and commit between two steps.
    Rows inserted after the start are skipped, so the walk ends. When the caller asks for the next step, `report` is
    called with the part of the range of keys that is done, a number up to 1.0.
    """
    newest = rows.aggregate(newest=Max("pk"))["newest"] or 0
    oldest_first = rows.order_by("pk").values_list("pk", flat=True)
    last, before_first = 0, None
    while step := list(oldest_first.filter(pk__gt=last, pk__lte=newest)[:size]):
        yield step
        last = step[-1]
        before_first = step[0] - 1 if before_first is None else before_first
        if report is not None:
            report((last - before_first) / (newest - before_first))
