"""A Kafka broker inside this process for development and tests: librdkafka's mock cluster.

It speaks Kafka's wire protocol over TCP on a port that the kernel chooses. It keeps about the newest 5 MB of records of
each partition in memory, and nothing on disk. The `confluent-kafka` wheel contains it but does not expose it, so this
module calls it by ctypes.

Source: https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_mock.h
"""

import ctypes
from collections.abc import Callable, Mapping
from ctypes import c_char_p, c_int, c_int32, c_size_t, c_void_p
from typing import Any

from confluent_kafka import cimpl, libversion

SETTINGS: Mapping[str, str] = {
    "KAFKA_API_VERSION": "2.3",
    "KAFKA_ASSIGNMENT_DELAY_MS": "300",
    "KAFKA_FETCH_MAX_WAIT_MS": "50",
    "KAFKA_SESSION_TIMEOUT_MS": "6000",
}
"""Client settings for this broker.

* `KAFKA_API_VERSION`: kafka-python cannot detect the broker's version.
* `KAFKA_ASSIGNMENT_DELAY_MS`: the leader of a group waits before it assigns partitions, because the broker refuses
  members that answer after the leader.
* `KAFKA_FETCH_MAX_WAIT_MS`: a fetch that finds no record waits for this whole time, even if a record arrives meanwhile.
  A shorter time needs more CPU: with 20 ms, an idle process of five groups took a fifth of a core.
* `KAFKA_SESSION_TIMEOUT_MS`: on one machine, a consumer that is silent for seconds is dead.
"""

_RD_KAFKA_PRODUCER = 0
_BROKER_ID = 1

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (c_void_p, []),
    "rd_kafka_conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "rd_kafka_new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "rd_kafka_destroy": (None, [c_void_p]),
    "rd_kafka_mock_cluster_new": (c_void_p, [c_void_p, c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (c_char_p, [c_void_p]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [c_void_p, c_int32]),
    "rd_kafka_mock_topic_create": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "rd_kafka_mock_broker_set_down": (c_int, [c_void_p, c_int32]),
    "rd_kafka_mock_broker_set_up": (c_int, [c_void_p, c_int32]),
}


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class EmbeddedKafka:
    """A cluster of one broker, which ends with this process."""

    creates_topics = False
    """Whether clients can send a request to create a topic.

    This broker does not support the request. It creates a topic when a client first uses it.
    """

    def __init__(self) -> None:
        self._library = _load()
        error = ctypes.create_string_buffer(512)
        configuration = self._library.rd_kafka_conf_new()
        # This client only hosts the cluster and never connects, so its log lines are noise.
        self._library.rd_kafka_conf_set(configuration, b"log_level", b"0", error, len(error))
        self._host = self._library.rd_kafka_new(_RD_KAFKA_PRODUCER, configuration, error, len(error))
        if not self._host:
            raise RuntimeError(f"librdkafka did not start: {error.value.decode()}")
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._host, 1)
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)

    def __str__(self) -> str:
        return f"mock cluster of librdkafka {libversion()[0]}"

    @property
    def bootstrap_servers(self) -> str:
        """Return the broker's address as `host:port`."""
        return self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, *, partitions: int) -> None:
        """Create a topic. Raise RuntimeError on failure.

        This broker does not support the request by which clients create topics.
        """
        error = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if error:
            raise RuntimeError(f"Topic {name} was not created: librdkafka error {error}")

    def go_down(self) -> None:
        """Close all connections and refuse new ones. Records and offsets stay. Raise RuntimeError on failure."""
        self._switch(self._library.rd_kafka_mock_broker_set_down, "go down")

    def come_back(self) -> None:
        """Accept connections again. Raise RuntimeError on failure."""
        self._switch(self._library.rd_kafka_mock_broker_set_up, "come back")

    def _switch(self, function: Callable[[int, int], int], what: str) -> None:
        error = function(self._cluster, _BROKER_ID)
        if error:
            raise RuntimeError(f"the embedded broker did not {what}: librdkafka error {error}")

    def stop(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._host)
