"""An earlier commit of this repository, checked out into a folder of its own for a comparison."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.processes import CHECKOUT

EARLIER = "beed5ef"
"""Id of the last commit that ran on gunicorn, before placing an order was made faster.

It needs the same versions of packages as the present commit, so it runs in the present virtual environment.
"""
GUNICORN = ("gunicorn", "commerce.wsgi", "--config", "deploy/gunicorn.conf.py")
"""Command of the web server of the commit `EARLIER`, as it was deployed."""


class NoEarlierCommit(Exception):
    """The earlier commit is not available: this folder is no git clone, or a shallow one."""

    def __init__(self) -> None:
        super().__init__(f"git finds no commit {EARLIER} here: benchmark a full clone")


@contextmanager
def checked_out() -> Iterator[Path]:
    """Check the commit `EARLIER` out into a temporary folder for the block, and yield its path.

    Raises NoEarlierCommit if git or the commit is missing.
    """
    if shutil.which("git") is None or _git("cat-file", "-e", f"{EARLIER}^{{commit}}").returncode != 0:
        raise NoEarlierCommit
    with tempfile.TemporaryDirectory(prefix="commerce-earlier-") as folder:
        checkout = Path(folder) / EARLIER
        _git("worktree", "add", "--detach", checkout, EARLIER).check_returncode()
        try:
            yield checkout
        finally:
            _git("worktree", "remove", "--force", checkout).check_returncode()


def _git(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", CHECKOUT, *arguments], capture_output=True, check=False)
