"""A connection prepares a statement once. If the prepared statement is stale, the SQL is sent, without an error."""

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection, transaction

from events.prepared import PreparedStatement

pytestmark = pytest.mark.django_db(transaction=True)

ADD = PreparedStatement("INSERT INTO prepared_example (id, name) VALUES (%s, %s) RETURNING id, name")
READ = PreparedStatement("SELECT id, name FROM prepared_example WHERE id = %s::bigint")


@pytest.fixture(autouse=True)
def _table() -> Iterator[None]:
    connection.close()
    run("CREATE TABLE prepared_example (id integer PRIMARY KEY, name varchar(5) NOT NULL)")
    yield
    connection.close()
    run("DROP TABLE prepared_example")


def run(sql: str, parameters: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def rows_of(statement: PreparedStatement, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        statement.execute(cursor, parameters)
        return list(cursor.fetchall())


def prepared() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'prepared_%'")
        (number,) = cursor.fetchone()
    return int(number)


def test_a_connection_prepares_a_statement_once() -> None:
    assert [rows_of(ADD, number, "name") for number in (1, 2, 3)] == [[(n, "name")] for n in (1, 2, 3)]
    assert prepared() == 1
    assert rows_of(READ, 2) == [(2, "name")]
    assert prepared() == 2


@pytest.mark.parametrize("name", ["", "it's", "\\", "%s", "$1", "é", "🚚"])
def test_parameters_arrive_unchanged(name: str) -> None:
    assert rows_of(ADD, 1, name) == rows_of(READ, 1) == [(1, name)]


def test_nothing_is_prepared_without_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "PREPARE", False)
    assert rows_of(ADD, 1, "name") == [(1, "name")]
    assert prepared() == 0


def test_a_transaction_prepares_nothing() -> None:
    with transaction.atomic():
        assert rows_of(ADD, 1, "name") == [(1, "name")]
    assert prepared() == 0


def test_a_transaction_is_unharmed_by_a_lost_statement() -> None:
    rows_of(ADD, 1, "name")
    run("DISCARD ALL")
    with transaction.atomic():
        rows_of(ADD, 2, "name")
    assert rows_of(READ, 2) == [(2, "name")]


def test_a_replaced_connection_prepares_anew() -> None:
    rows_of(ADD, 1, "name")
    connection.close()
    assert prepared() == 0
    assert rows_of(ADD, 2, "name") == [(2, "name")]
    assert prepared() == 1


def test_each_thread_prepares_on_its_own_connection() -> None:
    rows_of(ADD, 1, "name")
    found: list[Any] = []

    def look() -> None:
        found.extend([prepared(), rows_of(READ, 1), prepared()])
        connection.close()

    threads = [Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count([(1, "name")]) == 3
    assert found.count(0) == found.count(1) == 3


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param("DISCARD ALL", id="discard-all"),
        pytest.param("DEALLOCATE ALL", id="deallocate"),
        pytest.param("ALTER TABLE prepared_example ALTER id TYPE bigint", id="wider-number"),
        pytest.param("ALTER TABLE prepared_example ALTER name TYPE varchar(9)", id="longer-text"),
        pytest.param("ALTER TABLE prepared_example ALTER name TYPE text", id="other-type"),
        pytest.param("ALTER TABLE prepared_example ALTER name TYPE json USING to_json(name)", id="unlike-type"),
        pytest.param("ALTER TABLE prepared_example RENAME TO old; CREATE TABLE prepared_example (LIKE old)", id="new"),
    ],
)
def test_a_lost_or_stale_statement_is_sent_as_sql(loss: str, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(8):
        rows_of(ADD, number, "1")
    run(loss)
    try:
        for number in range(8, 11):
            assert [row[0] for row in rows_of(ADD, number, "1")] == [number]
            assert [row[0] for row in rows_of(READ, number)] == [number]
    finally:
        run("DROP TABLE IF EXISTS old")
    run("SELECT 1 / (count(*) = 3)::int FROM prepared_example WHERE id >= 8")
    assert len(caplog.records) <= 1


@pytest.mark.parametrize(
    "change",
    [
        "CREATE INDEX ON prepared_example (name)",
        "ALTER TABLE prepared_example ADD note text NOT NULL DEFAULT ''",
        "ALTER TABLE prepared_example ADD CHECK (name <> 'x')",
        "ANALYZE prepared_example",
    ],
)
def test_a_statement_stays_prepared_after_other_changes(change: str, caplog: pytest.LogCaptureFixture) -> None:
    rows_of(ADD, 1, "name")
    run(change)
    assert rows_of(ADD, 2, "name") == [(2, "name")]
    assert not caplog.records
    assert prepared() == 1


def test_a_name_prepared_by_another_client_is_no_error() -> None:
    run(ADD._prepare)
    assert rows_of(ADD, 1, "name") == [(1, "name")]


def test_errors_of_the_data_reach_the_caller_and_change_nothing() -> None:
    rows_of(ADD, 1, "name")
    with pytest.raises(IntegrityError):
        rows_of(ADD, 1, "again")
    with pytest.raises(DataError):
        rows_of(ADD, 2, "too long a name")
    with pytest.raises(DataError):
        rows_of(ADD, 2**40, "name")
    assert rows_of(ADD, 3, "name") == [(3, "name")]
    assert prepared() == 1
