"""Ways for a test to disturb the running product: crashes, failing SQL, other processes on its database, and time."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Generic, TypeVar

from django.db import connection, connections, transaction

Result = TypeVar("Result")


class Crash(BaseException):
    """Stands for the death of the process. Being a BaseException, it passes each `except Exception` of the product."""


def crash() -> None:
    raise Crash


class Hook:
    """A point in the product's work at which a test runs an action, in this process and not in its children."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], object]] = []
        self._process = os.getpid()

    def fire(self) -> None:
        """Run the test's next action, if one is left.

        Stand-ins for parts of the product, such as `MemoryConsumer`, call this method in the middle of their work.
        """
        if self._actions and os.getpid() == self._process:
            self._actions.pop()()

    @contextmanager
    def calling(self, action: Callable[[], object], *, times: int = 1) -> Iterator[None]:
        """Within the block, run `action` at the first `times` calls of `fire`."""
        self._actions = [action] * times
        try:
            yield
        finally:
            self._actions = []


class Clock:
    """A clock that a test advances. It replaces the class `datetime` or the module `time` in the product's modules."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._moment = datetime(2025, 1, 30, tzinfo=UTC)

    def advance(self, seconds: float) -> None:
        self._moment += timedelta(seconds=seconds)

    def now(self, timezone: tzinfo) -> datetime:
        return self._moment

    def monotonic(self) -> float:
        return self._moment.timestamp()


class OtherProcess:
    """A stand-in for another process: it uses a separate connection to the database."""

    def __init__(self) -> None:
        self._connection = connections["default"].copy()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Run the SQL statements of this block on the connection of the other process."""
        ours = connections["default"]
        connections["default"] = self._connection
        try:
            yield
        finally:
            connections["default"] = ours

    def end(self) -> None:
        self._connection.close()


class SlowTransaction(Generic[Result]):
    """A transaction of another process: it has executed `work`, and `end` commits it or rolls it back."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._process = OtherProcess()
        self._transaction = transaction.atomic()
        with self._process.at_work():
            self._transaction.__enter__()
            self.result = work()

    def end(self, *, commit: bool) -> None:
        with self._process.at_work():
            transaction.set_rollback(not commit)
            self._transaction.__exit__(None, None, None)
        self._process.end()


@contextmanager
def failing(statement: str, error: type[BaseException], *, executed: bool) -> Iterator[None]:
    """Within the block, let SQL that contains `statement` raise `error`; if `executed`, after PostgreSQL has run it."""

    def execute_and_fail(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if statement not in sql:
            return execute(sql, params, many, context)
        if executed:
            execute(sql, params, many, context)
        raise error("The connection is gone")

    with connection.execute_wrapper(execute_and_fail):
        yield
