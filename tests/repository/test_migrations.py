"""Processes of the previous release can run during and after the migrations that were added since that release."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import connection
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    DeleteModel,
    Migration,
    RemoveField,
    RenameField,
    RunPython,
    RunSQL,
)
from django.db.migrations.operations.base import Operation
from django.db.models import CharField, CheckConstraint, Index, Q
from django_migration_linter import MigrationLinter
from django_migration_linter.sql_analyser import analyse_sql_statements
from django_migration_linter.sql_analyser.base import Check, CheckMode, CheckType
from django_migration_linter.sql_analyser.postgresql import PostgresqlAnalyser
from pytest_django import DjangoDbBlocker

from testkit.processes import CHECKOUT

EXCEPTIONS: dict[str, dict[str, str]] = {}
"""Reasons why a finding of the linter cannot disturb the previous release.

The keys are the migration (`app.name`), and the code of the finding.
"""


def scans_an_existing_table(statements: list[str], **_: object) -> bool:
    """Return whether a CHECK or a foreign key is added to an existing table and validated at once.

    The validation reads the table, which may be large.
    """
    created = set(re.findall(r'CREATE TABLE ("\w+")', "\n".join(statements)))
    added = re.findall(
        r"^ALTER TABLE (\S+) ADD CONSTRAINT (?=.*(?:CHECK|FOREIGN KEY))(?!.*NOT VALID)", "\n".join(statements), re.M
    )
    return any(table not in created for table in added)


def locks_without_a_limit(statements: list[str], **_: object) -> bool:
    """Return whether a trigger is created without a `lock_timeout`.

    While the statement waits for its lock, all writes to the table wait behind it.
    """
    text = "\n".join(statements)
    return "CREATE TRIGGER" in text and "lock_timeout" not in text


class Analyser(PostgresqlAnalyser):
    """The checks of django-migration-linter, and the checks SCAN and LOCK.

    SCAN finds constraints that are validated on an existing table at once. LOCK finds triggers that are created without
    a `lock_timeout`.
    """

    migration_checks = [
        *PostgresqlAnalyser.migration_checks,
        Check("SCAN", scans_an_existing_table, "validation reads the table", CheckMode.TRANSACTION, CheckType.ERROR),
        Check("LOCK", locks_without_a_limit, "lock without a timeout", CheckMode.TRANSACTION, CheckType.ERROR),
    ]


@pytest.fixture
def linter(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[MigrationLinter]:
    # The fixture `db` would begin a transaction, in which no index can be created concurrently. Nothing is written.
    with django_db_blocker.unblock():
        yield MigrationLinter(no_output=True)


def extended(linter: MigrationLinter, *operations: Operation) -> Migration:
    """Return a migration of the app `orders` with `operations`. It follows the app's newest migration.

    The migration exists only in memory.
    """
    ((_, newest),) = linter.migration_loader.graph.leaf_nodes("orders")
    content = {
        "dependencies": [("orders", newest)],
        "operations": operations,
        "atomic": not any(isinstance(one, AddIndexConcurrently) for one in operations),
    }
    made: type[Migration] = type("Made", (Migration,), content)
    return made("9999_test", "orders")


def found(linter: MigrationLinter, migration: Migration) -> set[str]:
    """Return the codes of all that the linter finds in a migration, warnings included."""
    with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
        state = linter.migration_loader.project_state(migration.dependencies)
        migration.apply(state, editor, collect_sql=True)
    sql = [*(["BEGIN;"] if migration.atomic else []), *editor.collected_sql]
    programs = [linter.lint_runpython(one) for one in migration.operations if isinstance(one, RunPython)]
    issues = [analyse_sql_statements(Analyser, sql, ()), *programs]
    return {issue.code for errors, _, warnings in issues for issue in (*errors, *warnings)}


def new_migrations(linter: MigrationLinter, previous_release: Path) -> Iterator[Migration]:
    for (app, name), migration in linter.migration_loader.disk_migrations.items():
        file = Path(app, "migrations", f"{name}.py")
        if (CHECKOUT / file).exists() and not (previous_release / file).exists():
            yield migration


def test_new_migrations_suit_the_previous_release(linter: MigrationLinter, previous_release: Path) -> None:
    """Nothing that old processes use is dropped, renamed, made mandatory, or locked for long."""
    findings = {
        f"{migration.app_label}.{migration.name}": found(linter, migration)
        for migration in new_migrations(linter, previous_release)
    }
    assert {name: codes for name, codes in findings.items() if codes} == {
        name: set(reasons) for name, reasons in EXCEPTIONS.items()
    }


UNSAFE: dict[str, tuple[Operation, ...]] = {
    "DROP_COLUMN": (RemoveField("order", "last_sequence"),),
    "RENAME_COLUMN": (RenameField("order", "last_sequence", "latest_sequence"),),
    "DROP_TABLE": (DeleteModel("orderitem"),),
    "NOT_NULL": (AddField("order", "note", CharField(max_length=10, default="")),),
    "CREATE_INDEX": (AddIndex("order", Index(fields=["created_at"], name="by_time")),),
    "SCAN": (AddConstraint("order", CheckConstraint(condition=Q(last_sequence__gt=0), name="numbered")),),
    "LOCK": (RunSQL("CREATE TRIGGER t BEFORE UPDATE ON orders_order EXECUTE FUNCTION f()", RunSQL.noop),),
}


@pytest.mark.parametrize("code", UNSAFE)
def test_an_unsafe_migration_is_found(code: str, linter: MigrationLinter) -> None:
    assert code in found(linter, extended(linter, *UNSAFE[code]))


@pytest.mark.parametrize(
    "operations",
    [
        (AddField("order", "note", CharField(max_length=10, null=True)),),
        (AddField("order", "note", CharField(max_length=10, db_default="")),),
        (AddIndexConcurrently("order", Index(fields=["created_at"], name="by_time")),),
        (RunSQL("SET LOCAL lock_timeout = '5s'", RunSQL.noop), *UNSAFE["LOCK"]),
    ],
)
def test_a_safe_migration_passes(operations: tuple[Operation, ...], linter: MigrationLinter) -> None:
    assert found(linter, extended(linter, *operations)) == set()
