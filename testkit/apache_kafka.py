"""A real Apache Kafka for tests. The script of `make kafka` starts it, on free ports and with its own data."""

import os
import re
import signal
import subprocess
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from commerce.devserver import lifeline
from testkit.processes import free_port
from testkit.waiting import wait_until

START_SCRIPT = Path(__file__).parent.parent / "deploy" / "kafka" / "start"
TOPIC_CONFIG = {"max.message.bytes": str(2 * 1024 * 1024)}
"""Configuration of every topic: the largest message in bytes. The product sets it for topics of dead letters only."""
START_TIMEOUT_S = 240
"""Longest time of a start, in seconds. At the first start, Maven fetches Kafka."""


class ApacheKafka:
    creates_topics = True

    def __init__(self, home: Path) -> None:
        self._home = home
        self.port = free_port()
        self.advertised_port: int | None = None
        """The port that Kafka tells clients to use after their first connection; None stands for `port`."""
        self._process: subprocess.Popen[bytes] | None = None
        self._version = ""

    def __str__(self) -> str:
        return self._version

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises RuntimeError with the end of its log if it does not start.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        log = self._home / "start.log"
        with log.open("ab") as output:
            self._process = lifeline.start(
                [START_SCRIPT],
                env=os.environ | self._settings(),
                stdout=output,
                stderr=output,
            )
        try:
            wait_until(self._answers_or_ended, timeout=START_TIMEOUT_S)
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
            os.killpg(self._process.pid, signal.SIGCONT)
            self._process.wait()

    def kill(self) -> None:
        """Kill the broker with SIGKILL; `start` starts it again with its data."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stop the broker with SIGSTOP: its connections stay open, and it does not answer."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def go_down(self) -> None:
        self.stop()

    def come_back(self) -> None:
        self.start()

    def create_topic(self, name: str, *, partitions: int) -> None:
        """Create a topic, and wait until clients see a leader of each partition."""
        admin = self._admin()
        admin.create_topics([NewTopic(name, partitions, 1, config=TOPIC_CONFIG)])[name].result()

        def is_led() -> bool:
            found = admin.list_topics(name, timeout=10).topics[name].partitions.values()
            return len(found) == partitions and all(one.leader >= 0 for one in found)

        wait_until(is_led)

    def add_partitions(self, topic: str, *, total: int) -> None:
        admin = self._admin()
        admin.create_partitions([NewPartitions(topic, total)])[topic].result()

    def delete_records(self, topic: str, *, partition: int, before: int) -> None:
        """Delete the records of a partition below the offset `before`."""
        admin = self._admin()  # Keep a reference: the futures never end after it is garbage-collected.
        for future in admin.delete_records([TopicPartition(topic, partition, before)]).values():
            future.result(timeout=30)

    def delete_topic(self, name: str) -> None:
        """Delete the topic, and wait until it is gone."""
        admin = self._admin()
        admin.delete_topics([name])[name].result()
        wait_until(lambda: name not in admin.list_topics(timeout=10).topics)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _settings(self) -> dict[str, str]:
        settings = {"KAFKA_PORT": str(self.port), "KAFKA_DATA": str(self._home / "data")}
        if self.advertised_port is not None:
            settings["KAFKA_ADVERTISED_PORT"] = str(self.advertised_port)
        return settings

    def _admin(self) -> AdminClient:
        # Its log would report every refused connection during the wait.
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _answers_or_ended(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            return True
        try:
            return bool(self._admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False
