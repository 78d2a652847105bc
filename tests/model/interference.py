"""Interference with the product at work: other processes on its database, crashes, failures, the passing of time."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Generic, TypeVar

from django.db import connection, connections, transaction

Result = TypeVar("Result")


class Crash(BaseException):
    """The process ends here. A BaseException, so that no `except Exception` of the product catches it."""


def crash() -> None:
    raise Crash


class Hook:
    """A point at which a test interrupts the product, in this process and not in its children."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], object]] = []
        self._process = os.getpid()

    def fire(self) -> None:
        """Call the next action, if there is one."""
        if self._actions and os.getpid() == self._process:
            self._actions.pop()()

    @contextmanager
    def calling(self, action: Callable[[], object], *, times: int = 1) -> Iterator[None]:
        """Call `action` at the next `times` firings within the block."""
        self._actions = [action] * times
        try:
            yield
        finally:
            self._actions = []


class Clock:
    """Replaces the class `datetime` or the module `time` in the product's modules."""

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
    """Acts as another process for the database, on a separate connection."""

    def __init__(self) -> None:
        self._connection = connections["default"].copy()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Run the block's statements on the other process's connection."""
        ours = connections["default"]
        connections["default"] = self._connection
        try:
            yield
        finally:
            connections["default"] = ours

    def end(self) -> None:
        self._connection.close()


class SlowTransaction(Generic[Result]):
    """Work of another process that is not committed yet."""

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
    """Let SQL that contains `statement` fail, before or after the database has executed it."""

    def execute_and_fail(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if statement not in sql:
            return execute(sql, params, many, context)
        if executed:
            execute(sql, params, many, context)
        raise error("The connection is gone")

    with connection.execute_wrapper(execute_and_fail):
        yield
