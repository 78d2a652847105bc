"""Migrations of one app, back and forth."""

from django.db import connection
from django.db.migrations.executor import MigrationExecutor


def migrate_to(app: str, name: str) -> None:
    """Migrate the app to this migration."""
    MigrationExecutor(connection).migrate([(app, name)])


def migrate_to_newest(app: str) -> None:
    """Migrate the app to its newest migration, as later tests expect it."""
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes(app))
