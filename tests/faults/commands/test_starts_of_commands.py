"""What a command cannot do without, it names in one line as it starts, and ends with 1."""

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

FAILED = 1
"""Exit code, by contract."""
AT_ONCE = 10
"""Seconds, by contract."""


def last_words(process: ProductProcess) -> str:
    """What it said, once it has failed as it should."""
    assert process.process.wait(AT_ONCE) == FAILED
    return process.log.read_text()


@pytest.fixture
def empty_database() -> Iterator[str]:
    """URL of a database without tables."""
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
    words = last_words(start(*command, DATABASE_URL=empty_database))
    assert re.fullmatch(r"CommandError: The database lacks \d+ migrations? \(.*\): run `manage.py migrate`.\n", words)


def test_a_relay_without_database_says_so(start: Start) -> None:
    words = last_words(start(*RELAY, DATABASE_URL="postgresql://postgres@127.0.0.1:1/commerce"))
    assert words.startswith("CommandError: The database does not answer, check DATABASE_URL: ")
    assert "Traceback" not in words


def test_a_consumer_without_its_topic_says_so(start: Start) -> None:
    words = last_words(start(*CONSUME, **OwnTopic("never-made").env))
    assert words == "CommandError: Topic never-made does not exist: run `manage.py create_topics`.\n"


def test_a_run_on_a_taken_port_says_so(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = last_words(start("commerce.devserver.run", PORT=str(port)))
    assert words == f"Cannot run: port {port} is taken. Choose another one: make run PORT=8081\n"


def test_a_consumer_whose_client_never_returns_ends_and_shows_where_and_another_goes_on(
    site: Site, oracle: Oracle, start: Start
) -> None:
    site.consumer.stop()
    oracle.place_orders(site.web.url, 8)
    stuck = start(
        *CONSUME,
        launcher=sabotage("hang-before", POLLING, on_call=2),
        CONSUMER_POLL_WATCHDOG_SECONDS="2",
        **SHORT_SESSION,
    )
    words = last_words(stuck)
    assert words.count("The Kafka client has not returned for 2 s: ending with exit code 1. Stacks follow") == 1
    assert re.search(r"in sabotaged\n", words)
    site.consumer.start()
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.dead_letters) == (8, 0)
