"""The development provider for tests: within the test's process, or as a process of its own that a test may kill."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from commerce.devserver.provider.server import Options, Server
from testkit.processes import CHECKOUT, free_port
from testkit.waiting import wait_until


class ProviderUnderTest:
    """A running provider at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def env(self) -> dict[str, str]:
        """The environment variables of a process that uses this provider."""
        return {"PAYMENT_PROVIDER_URL": self.url, "SHIPPING_PROVIDER_URL": self.url}

    def fail(self, fault: str, *, of: str = "POST", times: int = 1) -> None:
        """Arrange a fault for the next `times` requests whose method and path begin with `of`."""
        answer = httpx.post(
            f"{self.url}/faults", json={"fault": fault, "of": of, "times": times}, trust_env=False, timeout=30
        )
        assert answer.status_code == 200, answer.text

    def book(self, service: str) -> dict[str, dict[str, Any]]:
        """Return the entries of the provider's book for `service`, "payments" or "shipments", by idempotency key."""
        answer = httpx.get(f"{self.url}/book", trust_env=False, timeout=30)
        return {entry["id"]: entry for entry in answer.json()[service]}


@contextmanager
def provider_in_thread(book: Path, **options: Any) -> Iterator[ProviderUnderTest]:
    """Run a provider without latency in threads of this process."""
    with Server(Options(**({"port": 0, "book": str(book), "latency_s": 0} | options))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield ProviderUnderTest(server.url)
        finally:
            server.shutdown()
            thread.join()


class ProviderProcess(ProviderUnderTest):
    """A provider in a process of its own. Each start has the same address and the same payments and shipments."""

    def __init__(self, book: Path, **variables: str) -> None:
        self._port = free_port()
        self._env = os.environ | {
            "PROVIDER_BOOK": str(book),
            "PROVIDER_PORT": str(self._port),
            "PROVIDER_LATENCY_MS": "5",
            **variables,
        }
        super().__init__(f"http://127.0.0.1:{self._port}")
        self.start()

    def start(self, **variables: str) -> None:
        """Start the process, with `variables` for this and all later starts, and wait until it answers."""
        self._env = self._env | variables
        self.process = subprocess.Popen(
            [sys.executable, "-m", "commerce.devserver.provider"],
            cwd=CHECKOUT,
            env=self._env,
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/book", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            assert self.process.poll() is None
            return False
