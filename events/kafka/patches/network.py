"""Patches of kafka-python's connections, and of the way in which its producer waits and closes.

The `kafka.net` modules that this file imports are private. Kafka clients accept a patched network client by their
parameter `kafka_client`, which kafka-python documents.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

MIN_SLEEP_MS = 100
"""Shortest sleep of the producer's sending thread while it waits for a broker, in milliseconds."""

Receive = Callable[[], tuple[bytes, Exception | None]]


class NetworkClient(KafkaNetClient):
    """Keep the reason why a broker refused a connection.

    Reason: the constructor of a client logs a refusal, tries again, and raises `KafkaTimeoutError` at its timeout.
    Upstream: https://github.com/dpkp/kafka-python/pull/2994 raises such errors later on, but not while a client looks
    for its first broker.
    Guard: tests/kafka/test_secured_kafka.py on Apache Kafka.
    It can go when a constructor raises the broker's own refusal.
    """

    def __init__(self, **config: Any) -> None:
        selector = NetworkSelector(**config)
        super().__init__(net=selector, manager=ConnectionManager(selector, **config))

    @property
    def refusal(self) -> Exception | None:
        """The last refusal; None if no broker refused a connection."""
        return self._manager.refusal


class ConnectionManager(KafkaConnectionManager):
    """Makes the connections of `NetworkClient`, and keeps the last refusal of a broker.

    A broker may close a connection right after it has sent the reason of its refusal. With `bytes_before_end`, a
    connection hands over this reason before it reports its end.
    """

    refusal: Exception | None = None

    async def _build_transport(self, node: Any, **options: Any) -> Any:
        transport = await super()._build_transport(node, **options)
        transport._sock_recv = bytes_before_end(transport._sock_recv)
        return transport

    async def _connect(self, node: Any, conn: KafkaConnection, **options: Any) -> None:
        conn.init_future.add_errback(self._keep_refusal)
        await super()._connect(node, conn, **options)

    def _keep_refusal(self, failure: Exception) -> None:
        # Other failures must not replace a refusal: the timeout makes the last attempt fail in any case.
        if _is_refusal(failure):
            self.refusal = failure


def bytes_before_end(receive: Receive) -> Receive:
    """Return a `receive` that returns bytes first, and reports the end of the connection at the next call.

    Reason: the transport drops bytes that arrive together with the end of the connection. A broker that refuses a
    password sends its reason and closes the connection at once.
    Upstream: no issue is known.
    Guard: events/kafka/tests/test_patches.py, and tests/kafka/test_secured_kafka.py on Apache Kafka.
    It can go when `kafka.net.transport` hands over those bytes before it closes.
    """
    end: Exception | None = None

    def receive_in_order() -> tuple[bytes, Exception | None]:
        nonlocal end
        if end:
            return b"", end
        received, end = receive()
        return received, None if received else end

    return receive_in_order


def _is_refusal(failure: Exception) -> bool:
    # The client raises its own error with the TLS error as its context.
    cause = failure if isinstance(failure, ssl.SSLError) else failure.__context__
    if isinstance(cause, ssl.SSLError):
        # A broker that stops during the handshake has refused nothing.
        return not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    return isinstance(failure, SaslAuthenticationFailedError | UnsupportedSaslMechanismError)


class SleepingNetworkClient(NetworkClient):
    """Let the producer's sending thread sleep until a broker is connected or has answered.

    Both events wake the thread.

    Reason: the thread asks how long to sleep. It expects milliseconds, but gets seconds, and 0 while a broker is
    silent. It then runs in a busy loop.
    Upstream: https://github.com/dpkp/kafka-python/issues/1413 and
    https://github.com/dpkp/kafka-python/issues/1907 were the same faults of older releases.
    Guard: events/kafka/tests/test_patches.py, and tests/faults/outbox/test_kafka_away.py on Apache Kafka.
    It can go when the thread sleeps without this class while a broker is silent.
    """

    def connection_delay(self, node_id: Any) -> float:
        """Return how long the producer's sending thread should sleep, in milliseconds."""
        return max(super().connection_delay(node_id) * 1000, MIN_SLEEP_MS)


class ClosingProducer(KafkaProducer):
    """End the producer's sending thread at `close`, even if messages are in flight.

    For this, `flush` raises no error at its timeout.

    Reason: `close` calls `flush`. If `flush` raises its timeout error, `close` ends before it tells the thread to end.
    Upstream: https://github.com/dpkp/kafka-python/pull/2537 made `close` flush.
    Guard: events/kafka/tests/test_patches.py.
    It can go when `close` ends the thread after a flush that timed out.
    """

    def flush(self, timeout: float | None = None) -> None:
        with suppress(KafkaTimeoutError):
            super().flush(timeout)
