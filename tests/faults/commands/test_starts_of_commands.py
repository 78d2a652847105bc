"""A command that cannot start names the missing requirement in one line, and ends with exit code 1."""

import os
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg2
import pytest

from testkit.processes import ProductProcess
from tests.faults.conftest import CONSUME, RELAY, SHORT_SESSION, OwnTopic, Site, Start
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle
from tests.faults.places import POLLING

EXIT_CODE_FAILED = 1
"""Exit code of a command that cannot start, as documented."""
EXIT_TIMEOUT_S = 10
"""Seconds within which a command that cannot start must end."""


def failure_output(process: ProductProcess) -> str:
    """Wait until the process has failed with exit code 1, and return its output."""
    assert process.process.wait(EXIT_TIMEOUT_S) == EXIT_CODE_FAILED
    return process.log.read_text()


@pytest.fixture
def empty_database() -> Iterator[str]:
    """Create a database without tables and return its URL; drop it after the test."""
    url = urlsplit(os.environ["DATABASE_URL"])
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE nothing")
            yield url._replace(path="/nothing").geturl()
            cursor.execute("DROP DATABASE nothing WITH (FORCE)")
    finally:
        connection.close()


@pytest.mark.parametrize("command", [CONSUME, RELAY])
def test_a_command_without_migrations_names_them_and_what_to_run(
    command: tuple[str, ...], empty_database: str, start: Start
) -> None:
    words = failure_output(start(*command, DATABASE_URL=empty_database))
    assert re.fullmatch(r"CommandError: The database lacks \d+ migrations? \(.*\): run `manage.py migrate`.\n", words)


def test_a_relay_without_database_says_so(start: Start) -> None:
    words = failure_output(start(*RELAY, DATABASE_URL="postgresql://postgres@127.0.0.1:1/commerce"))
    assert words.startswith("CommandError: The database does not answer, check DATABASE_URL: ")
    assert "Traceback" not in words


def test_a_consumer_without_its_topic_says_so(start: Start) -> None:
    words = failure_output(start(*CONSUME, **OwnTopic("never-made").env))
    assert words == "CommandError: Topic never-made does not exist: run `manage.py create_topics`.\n"


def test_a_run_on_a_taken_port_says_so(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = failure_output(start("commerce.devserver.run", PORT=str(port)))
    assert words == f"Cannot run: port {port} is taken. Choose another one: make run PORT=8081\n"


def test_a_consumer_with_a_stuck_client_ends_and_shows_stacks(site: Site, oracle: Oracle, start: Start) -> None:
    """Another consumer takes over the partitions of the consumer that has ended."""
    site.consumer.stop()
    oracle.place_orders(site.web.url, 8)
    stuck = start(
        *CONSUME,
        launcher=sabotage("hang-before", POLLING, on_call=2),
        CONSUMER_POLL_WATCHDOG_SECONDS="2",
        **SHORT_SESSION,
    )
    words = failure_output(stuck)
    assert words.count("The Kafka client has not returned for 2 s: ending with exit code 1. Stacks follow") == 1
    assert re.search(r"in sabotaged\n", words)
    site.consumer.start()
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.dead_letters) == (8, 0)
