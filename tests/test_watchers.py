"""Several watchers as processes: an anomaly gets one row and one event, even if watchers are killed as they add it."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest

from testkit import servers
from testkit.database import rows, value
from testkit.processes import ProductProcess
from testkit.servers import Broker
from testkit.waiting import wait_until

WATCHERS = 3
GATE_LOCK_ID = 0x73616C65
SELL = """
    INSERT INTO sales_salesbucket (generation, minute, event_type, partition, count, amount)
    SELECT coalesce((SELECT live FROM sales_generations), 0), minute, 'ORDER_CREATED', 0, 100, 1000
    FROM generate_series(date_trunc('hour', now()) - interval '3 weeks', now() - interval '40 minutes', '5 minutes')
        AS minute;
    INSERT INTO sales_anomalywatch (id, judged_until) VALUES (1, date_trunc('hour', now()) - interval '2 hours')
    """
"""SQL that stores the sales of a shop that was busy for three weeks and has sold nothing for the last forty minutes.

The sales count as judged up to a time two to three hours ago.
"""
EMPTY = "DELETE FROM sales_salesbucket; DELETE FROM sales_anomalywatch; DELETE FROM sales_salesanomaly"


@pytest.fixture
def watchers(broker: Broker, site_database: None, tmp_path: Path) -> Iterator[list[ProductProcess]]:
    """Start three watchers of a shop that was busy for three weeks and has been silent for forty minutes.

    Within a block of `closed_gate`, no watcher can finish the insert of an anomaly.
    """
    topic = f"order-events-{uuid4().hex[:8]}"
    broker.create_topic(topic, partitions=servers.PARTITIONS)
    env = {
        "DJANGO_SETTINGS_MODULE": "testkit.own_topic_settings",
        "OWN_TOPIC": topic,
        "SALES_ANOMALY_GRACE_SECONDS": "0",
    }
    rows(EMPTY)
    rows(SELL)
    command = ("django", "watch_sales", "--liveness-file")
    started = [
        ProductProcess(*command, str(alive(tmp_path, number)), log=tmp_path / f"{number}.log", env=env)
        for number in range(WATCHERS)
    ]
    yield started
    for process in started:
        process.kill()
    rows(EMPTY)


def alive(folder: Path, number: int) -> Path:
    """Return the path of a watcher's liveness file. The watcher creates the file when it is ready to handle signals."""
    return folder / f"{number}.alive"


@contextmanager
def closed_gate() -> Iterator[None]:
    """Let every insert of an anomaly wait until the block ends."""
    rows(
        "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"PERFORM pg_advisory_xact_lock_shared({GATE_LOCK_ID}); RETURN NEW; END $$;"
        "CREATE TRIGGER gate AFTER INSERT ON sales_salesanomaly FOR EACH ROW EXECUTE FUNCTION gate()"
    )
    try:
        with closing(psycopg2.connect(os.environ["DATABASE_URL"])) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [GATE_LOCK_ID])
            yield
    finally:
        rows("SET LOCAL lock_timeout = '20s'; DROP FUNCTION gate CASCADE")


def anomalies() -> int:
    return int(value("SELECT count(*) FROM sales_salesanomaly WHERE rule = 'SILENCE'"))


def test_several_watchers_find_an_anomaly_once(watchers: list[ProductProcess], tmp_path: Path) -> None:
    wait_until(lambda: anomalies() == 1, timeout=30)
    ids = rows("SELECT event_id FROM sales_salesanomaly")
    assert len(ids) == value(
        "SELECT count(*) FROM events_outboxevent JOIN sales_salesanomaly USING (event_id) WHERE topic = %(topic)s",
        topic="sales-events",
    )
    assert sum(process.log.read_text().count("Found 1 anomaly") for process in watchers) == 1
    wait_until(lambda: all(alive(tmp_path, number).exists() for number in range(WATCHERS)))
    assert [process.stop() for process in watchers] == [0] * WATCHERS


def test_killed_watcher_loses_and_doubles_nothing(site_database: None, request: pytest.FixtureRequest) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %(gate)s AND NOT granted"
    with closed_gate():
        watchers: list[ProductProcess] = request.getfixturevalue("watchers")
        wait_until(lambda: value(waiting, gate=GATE_LOCK_ID) == 1, timeout=30)
        for process in watchers[1:]:
            os.kill(process.process.pid, signal.SIGKILL)
        assert anomalies() == 0
    wait_until(lambda: anomalies() == 1, timeout=30)
    assert watchers[0].process.poll() is None
    assert value(
        "SELECT count(*) FROM events_outboxevent WHERE event_id IN (SELECT event_id FROM sales_salesanomaly)"
    ) == value("SELECT count(*) FROM sales_salesanomaly")
