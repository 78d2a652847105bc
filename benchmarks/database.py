"""The benchmarks' own access to the database, which bypasses Django."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg2
from psycopg2 import extensions


def _wait(connection: Any) -> None:
    """Wait for the connection in Python, so that a signal ends the wait. libpq would wait until the statement ends."""
    while (state := connection.poll()) != extensions.POLL_OK:
        reading = state == extensions.POLL_READ
        select.select([connection] if reading else [], [] if reading else [connection], [])


extensions.set_wait_callback(_wait)


@cache
def _connection(url: str) -> Any:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


@contextmanager
def _cursor(url: str | None) -> Iterator[Any]:
    with _connection(url or os.environ["DATABASE_URL"]).cursor() as cursor:
        yield cursor


def execute(sql: str, url: str | None = None, **parameters: Any) -> None:
    with _cursor(url) as cursor:
        cursor.execute(sql, parameters)


def rows(sql: str, url: str | None = None, **parameters: Any) -> list[tuple[Any, ...]]:
    with _cursor(url) as cursor:
        cursor.execute(sql, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def value(sql: str, url: str | None = None, **parameters: Any) -> Any:
    return rows(sql, url, **parameters)[0][0]


def pending(url: str | None = None) -> int:
    return int(value("SELECT count(*) FROM events_outboxevent WHERE published_at IS NULL", url))


def empty(*tables: str) -> None:
    """Empty the tables, and analyze them, so that a round does not depend on the statistics of an earlier round."""
    execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
    execute(f"ANALYZE {', '.join(tables)}")
