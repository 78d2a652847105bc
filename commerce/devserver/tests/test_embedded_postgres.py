"""`make run` starts on the data that an interrupted or killed run has left."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from commerce.devserver.embedded_postgres import EmbeddedPostgres


@pytest.fixture
def home() -> Iterator[Path]:
    # Outside pytest's own folder, which the server's user cannot enter.
    with tempfile.TemporaryDirectory(prefix="commerce-tests-") as home:
        yield Path(home)


def start(home: Path) -> EmbeddedPostgres:
    postgres = EmbeddedPostgres(home, durable=False)
    postgres.start()
    return postgres


def execute(postgres: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(postgres.url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_data_survive_a_server_that_was_left_running(home: Path) -> None:
    killed_run = start(home)
    execute(killed_run, "CREATE TABLE kept AS SELECT 7")
    next_run = start(home)
    try:
        assert execute(next_run, "TABLE kept") == [(7,)]
    finally:
        next_run.stop()
        killed_run.stop()


def test_a_process_of_another_program_is_left_alone(home: Path) -> None:
    start(home).stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (home / "postgres" / "postmaster.pid").write_text(f"{stranger.pid}\n")
        start(home).stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_interrupted_first_start_is_repeated(home: Path) -> None:
    (home / "postgres.part").mkdir(parents=True)
    (home / "postgres.part" / "PG_VERSION").write_text("18\n")
    start(home).stop()
