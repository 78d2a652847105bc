"""A running `make run` in a copy of the checkout, so that it does not disturb the developer's own run."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from commerce.devserver import lifeline
from commerce.devserver.embedded_postgres import data_home
from commerce.devserver.run.surroundings import VARIABLE_PREFIXES
from testkit.processes import CHECKOUT
from testkit.waiting import wait_until

PARTS = (
    *("manage.py", "commerce", "orders", "notifications", "sales", "payments", "shipping", "fulfilment", "events"),
    *("deploy", "docs"),
)


class Run:
    """A `make run` in the folder `checkout` that writes its output to `log`.

    The constructor starts it, and returns when it is ready or has ended. It raises TimeoutError after 120 s.
    """

    def __init__(self, checkout: Path, port: int, **env: str) -> None:
        self.site = f"http://127.0.0.1:{port}"
        self.log = checkout / "run.log"
        with self.log.open("wb") as output:
            self.process = lifeline.start(
                [sys.executable, "-m", "commerce.devserver.run"],
                cwd=checkout,
                env=environment() | {"PORT": str(port)} | env,
                stdout=output,
                stderr=output,
            )
        wait_until(lambda: self.says("READY") or self.process.poll() is not None, timeout=120)
        running = self.process.poll() is None
        self.children = psutil.Process(self.process.pid).children(recursive=True) if running else []

    def says(self, text: str) -> bool:
        return text in self.log.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def manage(self, *command: str) -> str:
        """Run a manage.py command in the run's copy of the checkout, and return its output. `make run` must be up.

        Raises:
            subprocess.CalledProcessError: the command ended with an error.
        """
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=self.log.parent,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the run, including those of its PostgreSQL."""
        home = data_home(self.log.parent)
        (pid_file,) = home.rglob("postmaster.pid")
        database = psutil.Process(int(pid_file.read_text().split()[0]))
        return list(
            {
                self_or_child
                for one in (psutil.Process(self.process.pid), database)
                for self_or_child in (one, *one.children(recursive=True))
            }
        )

    def child(self, command: str) -> psutil.Process:
        return next(one for one in self.children if command in one.cmdline())


def copy_checkout(to: Path) -> None:
    for part in PARTS:
        copy = shutil.copytree if (CHECKOUT / part).is_dir() else shutil.copy
        copy(CHECKOUT / part, to / part)


def environment() -> dict[str, str]:
    """Return this process's environment without the product's settings, because `make run` sets its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIXES)}
