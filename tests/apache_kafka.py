"""A real Apache Kafka for tests: the same script that `make kafka` runs, on free ports and with data of its own."""

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.waiting import wait_until

START_SCRIPT = Path(__file__).parent.parent / "deploy" / "kafka" / "start"
TOPIC_CONFIG = {"max.message.bytes": str(2 * 1024 * 1024)}
"""As large as the embedded broker takes."""
START_TIMEOUT = 240
"""Seconds; at the first start Maven fetches Kafka."""


class ApacheKafka:
    creates_topics = True

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._version = ""

    def __str__(self) -> str:
        return self._version

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Raises RuntimeError with the broker's last words where it does not come up."""
        self._home.mkdir(parents=True, exist_ok=True)
        log = self._home / "start.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [START_SCRIPT],
                env=os.environ | {"KAFKA_PORT": str(self._port), "KAFKA_DATA": str(self._home / "data")},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until(self._answers_or_ended, timeout=START_TIMEOUT)
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"Apache Kafka did not start: {log.read_text()[-2000:]}") from error
        if self._process.poll() is not None:
            raise RuntimeError(f"Apache Kafka did not start: {log.read_text()[-2000:]}")
        announced = wait_until(lambda: re.search(r"(Apache Kafka \S+) on ", log.read_text()))
        self._version = announced.group(1)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()

    def go_down(self) -> None:
        self.stop()

    def come_back(self) -> None:
        self.start()

    def create_topic(self, name: str, *, partitions: int) -> None:
        admin = self._admin()
        admin.create_topics([NewTopic(name, partitions, 1, config=TOPIC_CONFIG)])[name].result()

    def _admin(self) -> AdminClient:
        # Its log would report every refused connection while we wait.
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _answers_or_ended(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            return True
        try:
            return bool(self._admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
