"""The product's processes, started as an operator starts them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from commerce.devserver import lifeline
from testkit.waiting import wait_until

CHECKOUT = Path(__file__).parent.parent
STOP_TIMEOUT_S = 10
"""Longest time from SIGTERM to the end of a process, in seconds, as documented."""


class ProductProcess:
    """One process of the product, which the constructor starts. It writes its output to `log`.

    `command` is the name of a module and its arguments, as `python -m` takes them. `launcher` has the same form. It
    stands before `command`, and starts it with a change, such as a sabotaged function. `checkout` is the folder with
    the code to run, by default that of this repository.
    """

    def __init__(
        self,
        *command: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        checkout: Path = CHECKOUT,
    ) -> None:
        self._command = [sys.executable, "-m", *launcher, *command]
        self._cwd = checkout
        # `python -m django`, because manage.py would read the settings of a running `make run`.
        self._env = {**os.environ, "DJANGO_SETTINGS_MODULE": "commerce.settings", **(env or {})}
        self.log = log
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = lifeline.start(self._command, cwd=self._cwd, env=self._env, stdout=output, stderr=output)

    def stop(self) -> int:
        """Send SIGTERM to the process, wait until it ends, and return its exit code.

        Raises subprocess.TimeoutExpired after `STOP_TIMEOUT_S`.
        """
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the process and its children with SIGKILL."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def freeze(self) -> None:
        """Send SIGSTOP to the process and its children, and wait until all of them are stopped."""
        family = self.family()
        os.killpg(self.process.pid, signal.SIGSTOP)
        wait_until(lambda: all(is_frozen(process) for process in family))

    def thaw(self) -> None:
        """Continue the process and its children with SIGCONT."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def family(self) -> list[psutil.Process]:
        """Return the process and its children, recursively."""
        itself = psutil.Process(self.process.pid)
        return [itself, *itself.children(recursive=True)]

    def says(self, text: str) -> bool:
        return text in self.log.read_text()


def is_frozen(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


class WebServer(ProductProcess):
    """The web server on a free port, by default without the limits on registering and logging in."""

    def __init__(
        self,
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        program: Sequence[str] = ("commerce.web_server",),
        checkout: Path = CHECKOUT,
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        super().__init__(
            *(*program, "--bind", self.url.removeprefix("http://")),
            log=log,
            # All tests share one address, and register more customers a minute than the limit allows.
            env={"THROTTLE_REGISTER": "", "THROTTLE_TOKEN": "", **(env or {})},
            launcher=launcher,
            checkout=checkout,
        )

    def start(self) -> None:
        super().start()
        try:
            wait_until(self._answers, timeout=30)
        except TimeoutError as error:
            self.kill()
            raise RuntimeError(f"The web server did not start: {self.log.read_text()[-2000:]}") from error

    def workers(self) -> list[psutil.Process]:
        return self.family()[1:]

    def has_connections_to_close(self) -> bool:
        """Return whether a worker has not yet closed a connection that its client has closed."""
        connections = (connection for worker in self.workers() for connection in worker.net_connections())
        return any(connection.status == psutil.CONN_CLOSE_WAIT for connection in connections)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def refusal_to_start(environment: dict[str, str]) -> str:
    """Load the product's settings in a process with only these environment variables. Return its error output.

    Raises AssertionError if the settings accept the variables.
    """
    started = subprocess.run(
        [sys.executable, "-c", "import commerce.settings"], env=environment, capture_output=True, text=True, check=False
    )
    assert started.returncode != 0
    return started.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
