"""The files of an earlier commit, in a folder of their own."""

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from testkit.processes import CHECKOUT


class NoSuchCommit(Exception):
    """The commit is not available: this folder is no git clone, or a shallow one. The message says what to do."""

    def __init__(self, commit: str) -> None:
        super().__init__(f"git finds no commit {commit[:7]} here: use a full clone, or run git fetch --unshallow")


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Write the files of `commit` to a temporary folder for the block, and yield its path.

    The clone itself does not change, so that nothing is left in it after a kill. Raises NoSuchCommit.
    """
    if shutil.which("git") is None or _git("cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise NoSuchCommit(commit)
    archive = _git("archive", "--format=zip", commit)
    archive.check_returncode()
    with tempfile.TemporaryDirectory(prefix="commerce-earlier-") as folder:
        zipfile.ZipFile(BytesIO(archive.stdout)).extractall(folder)
        yield Path(folder)


def _git(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", CHECKOUT, *arguments], capture_output=True, check=False)
