"""Faults inside PostgreSQL: locked tables, troubled inserts, unanswered commits, and cut connections."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from testkit.database import rows, value

NOTIFICATIONS = "notifications_notification"
OUTBOX = "events_outboxevent"
SET_CLEANUP_TIMEOUT = "SET LOCAL lock_timeout = '30s';"
"""SQL that lets the transaction wait up to 30 s for a lock. This is the longest time of a statement of the product."""


@contextmanager
def locked(table: str) -> Iterator[None]:
    """Lock the table within the block, so that every read and write of it waits."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"{SET_CLEANUP_TIMEOUT} LOCK TABLE {table}")
        yield
    finally:
        connection.close()


def waiting_for(table: str) -> int:
    """Return the number of sessions that wait for the lock on a table."""
    return int(value("SELECT count(*) FROM pg_locks WHERE relation = %(table)s::regclass AND NOT granted", table=table))


@contextmanager
def on_notification(body: str, *, at_commit: bool = False) -> Iterator[None]:
    """Within the block, run the PL/pgSQL `body` before each INSERT of a notification, or (`at_commit`) at its commit.

    In `body`, `NEW` is the notification.
    """
    trigger = "CONSTRAINT TRIGGER sabotage AFTER" if at_commit else "TRIGGER sabotage BEFORE"
    deferral = "DEFERRABLE INITIALLY DEFERRED" if at_commit else ""
    rows(
        f"CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;"
        f"CREATE {trigger} INSERT ON {NOTIFICATIONS} {deferral} FOR EACH ROW EXECUTE FUNCTION sabotage()"
    )
    try:
        yield
    finally:
        rows(f"{SET_CLEANUP_TIMEOUT} DROP FUNCTION sabotage CASCADE")


@contextmanager
def constraint(check: str) -> Iterator[None]:
    """Require that every notification inserted within the block meets an SQL condition."""
    rows(f"ALTER TABLE {NOTIFICATIONS} ADD CONSTRAINT sabotage CHECK ({check}) NOT VALID")
    try:
        yield
    finally:
        rows(f"{SET_CLEANUP_TIMEOUT} ALTER TABLE {NOTIFICATIONS} DROP CONSTRAINT sabotage")


GATE_LOCK_ID = 0x67617465
"""Key of the advisory lock that closes the gate: a place in a trigger at which sessions wait."""
WAIT_AT_THE_GATE = f"PERFORM pg_advisory_xact_lock_shared({GATE_LOCK_ID});"
"""PL/pgSQL statement with which a trigger waits while `closed_gate` holds the lock."""


@contextmanager
def closed_gate() -> Iterator[None]:
    """Within the block, let every trigger that runs `WAIT_AT_THE_GATE` wait until the block ends."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [GATE_LOCK_ID])
        yield
    finally:
        connection.close()


def waiting_at_the_gate() -> list[int]:
    """Return the process ids of the database sessions whose trigger waits for the end of `closed_gate`."""
    sql = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %(gate)s AND NOT granted"
    return [pid for (pid,) in rows(sql, gate=GATE_LOCK_ID)]


@contextmanager
def unanswered_commits() -> Iterator[None]:
    """Within the block, sessions with `synchronous_commit` commit and then wait for a standby that does not exist."""
    _administer("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        yield
    finally:
        _administer("ALTER SYSTEM RESET synchronous_standby_names")


def waiting_for_the_standby(application: str) -> list[int]:
    """Return the process ids of the sessions of `application` that have committed and wait for the standby."""
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = %(application)s"
    return [pid for (pid,) in rows(waiting, application=application)]


def cut(sessions: list[int]) -> None:
    """End the database sessions with these process ids."""
    rows("SELECT pg_terminate_backend(pid) FROM unnest(%(pids)s) AS pid", pids=sessions)


def _administer(statement: str) -> None:
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            cursor.execute("SELECT pg_reload_conf()")
    finally:
        connection.close()
