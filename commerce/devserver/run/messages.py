"""Messages of `make run` to its user: its progress, and errors that end it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import CommandError
from django.db import Error
from django.db.migrations.exceptions import InconsistentMigrationHistory

from commerce.devserver.embedded_postgres import OLD_SERVER, EmbeddedPostgresFailed

EXPECTED_ERRORS = (OSError, EmbeddedPostgresFailed, CommandError, Error, InconsistentMigrationHistory)


class CannotRun(Exception):
    """`make run` or `make reset` cannot go on. It ends with exit code 1 and this message."""


@contextmanager
def cannot_run_on_errors(*, own_data: bool = True) -> Iterator[None]:
    """Turn every expected error of this block into CannotRun.

    With `own_data`, the data of an earlier run may be the cause, and the message ends with a hint how to go on.
    """
    try:
        yield
    except EXPECTED_ERRORS as error:
        message = str(error).strip()
        raise CannotRun(f"{message}\n{recovery_hint(message)}" if own_data else message) from error


def recovery_hint(message: str) -> str:
    if os.strerror(errno.ENOSPC) in message:
        return "To go on: make room on the disk, then `make run`."
    if OLD_SERVER in message:
        return "Its data is kept."
    if os.strerror(errno.EACCES) in message or os.strerror(errno.EROFS) in message:
        return "To go on: let this user write there, or have the files' owner call `make reset`, which drops them."
    return "To go on: repair that, or start from nothing with `make reset`, which drops the data of earlier runs."


def say(text: str) -> None:
    """Print a step of the run."""
    print(f"== {text}", flush=True)
