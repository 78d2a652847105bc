"""The product's own processes, started as an operator would start them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.waiting import wait_until

CHECKOUT = Path(__file__).parent.parent
STOP_TIMEOUT = 10
"""Seconds a process has after SIGTERM, by contract."""


class ProductProcess:
    """One process of the product; its output goes to `log`."""

    def __init__(self, *command: str, log: Path, env: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", *command]
        # `python -m django` and not manage.py, which would read the settings of a running `make run`.
        self._env = {**os.environ, "DJANGO_SETTINGS_MODULE": "commerce.settings", **(env or {})}
        self.log = log
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, cwd=CHECKOUT, env=self._env, stdout=output, stderr=output, start_new_session=True
            )

    def stop(self) -> int:
        """End it as a supervisor does; its exit code. Raises subprocess.TimeoutExpired after `STOP_TIMEOUT`."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)

    def kill(self) -> None:
        """kill -9, its children included."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def says(self, text: str) -> bool:
        return text in self.log.read_text()


class WebServer(ProductProcess):
    def __init__(self, *, log: Path, env: Mapping[str, str] | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        super().__init__(
            *(
                "gunicorn",
                "commerce.wsgi",
                "--config",
                "deploy/gunicorn.conf.py",
                "--bind",
                self.url.removeprefix("http://"),
            ),
            log=log,
            env=env,
        )

    def start(self) -> None:
        super().start()
        wait_until(self._answers, timeout=30)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
