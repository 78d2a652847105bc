"""What a run says: its progress, and why it cannot go on."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import CommandError
from django.db import Error
from django.db.migrations.exceptions import InconsistentMigrationHistory

from commerce.devserver.embedded_postgres import EmbeddedPostgresFailed

TROUBLES = (OSError, EmbeddedPostgresFailed, CommandError, Error, InconsistentMigrationHistory)


class CannotRun(Exception):
    """The run ends with 1 and this message."""


@contextmanager
def troubles_end_the_run(*, data_are_ours: bool = True) -> Iterator[None]:
    """Raise CannotRun for what goes wrong; where data of an earlier run may be why, its last line says how to go on."""
    try:
        yield
    except TROUBLES as error:
        said = str(error).strip()
        raise CannotRun(f"{said}\n{way_on(said)}" if data_are_ours else said) from error


def way_on(said: str) -> str:
    if os.strerror(errno.ENOSPC) in said:
        return "To go on: make room on the disk, then `make run`."
    if os.strerror(errno.EACCES) in said or os.strerror(errno.EROFS) in said:
        return "To go on: let this user write there, or have the files' owner call `make reset`, which drops them."
    return "To go on: mend that, or start from nothing with `make reset`, which drops what earlier runs have kept."


def say(what: str) -> None:
    print(f"== {what}", flush=True)
