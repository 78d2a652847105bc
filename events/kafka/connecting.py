"""Connections that never leak, and one error for a Kafka that does not answer."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.conf import settings
from kafka import KafkaAdminClient
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

CONNECT_TIMEOUT_MS = 5_000

ADVICE = "check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_CAFILE"

Client = TypeVar("Client")
Receive = Callable[[], tuple[bytes, Exception | None]]


class KafkaUnreachable(Exception):
    """Kafka did not answer. It may come back: wait, then try again."""


class KafkaRefuses(KafkaUnreachable):
    """Kafka, or our look at its certificate, said no. Waiting does not help whoever has only just been configured."""


class NetworkClient(KafkaNetClient):
    """Knows of a connection that was refused. The original tells its log alone, and then that the time is up."""

    def __init__(self, **config: Any) -> None:
        selector = NetworkSelector(**config)
        super().__init__(net=selector, manager=ConnectionManager(selector, **config))

    @property
    def refusal(self) -> Exception | None:
        return self._manager.refusal


class ConnectionManager(KafkaConnectionManager):
    refusal: Exception | None = None

    async def _build_transport(self, node: Any, **options: Any) -> Any:
        transport = await super()._build_transport(node, **options)
        transport._sock_recv = last_words_first(transport._sock_recv)
        return transport

    async def _connect(self, node: Any, conn: KafkaConnection, **options: Any) -> None:
        conn.init_future.add_errback(self._note)
        await super()._connect(node, conn, **options)

    def _note(self, failure: Exception) -> None:
        # The last attempt fails in any case: it is cut short when the time is up.
        if _is_refusal(failure):
            self.refusal = failure


def last_words_first(receive: Receive) -> Receive:
    """Keeps the end of a connection for the next call when bytes came with it.

    The transport drops such bytes, and a broker that refuses a password says so and hangs up at once.
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
    # The client packs what went wrong between two TLS ends into an error of its own.
    cause = failure if isinstance(failure, ssl.SSLError) else failure.__context__
    if isinstance(cause, ssl.SSLError):
        # A broker that goes down in mid-handshake is one that is away.
        return not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    return isinstance(failure, SaslAuthenticationFailedError | UnsupportedSaslMechanismError)


def connect(client: Callable[..., Client], *, network: type[NetworkClient] = NetworkClient, **config: Any) -> Client:
    """Build a client on a `network` client, or leave nothing behind.

    A constructor that raises leaves its network thread running, so the network client is closed here.

    Raises:
        KafkaUnreachable: no broker answered within `CONNECT_TIMEOUT_MS`.
        KafkaRefuses: one answered, and let nobody in.
    """
    opened: list[NetworkClient] = []

    def network_client(**network_config: Any) -> NetworkClient:
        opened.append(network(**network_config))
        return opened[-1]

    try:
        return client(
            kafka_client=network_client,
            bootstrap_servers=settings.KAFKA_BOOTSTRAP_SERVERS,
            api_version=settings.KAFKA_API_VERSION,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            # The default backs off to 30 s, which is how long a healed system would stay idle.
            reconnect_backoff_max_ms=1_000,
            metadata_max_age_ms=settings.KAFKA_METADATA_MAX_AGE_MS,
            security_protocol=settings.KAFKA_SECURITY_PROTOCOL,
            sasl_mechanism=settings.KAFKA_SASL_MECHANISM,
            sasl_plain_username=settings.KAFKA_SASL_USERNAME,
            sasl_plain_password=settings.KAFKA_SASL_PASSWORD,
            ssl_cafile=settings.KAFKA_SSL_CAFILE,
            **config,
        )
    except BaseException as error:
        for network in opened:
            network.close()
        if isinstance(error, KafkaTimeoutError):
            if refusal := next((network.refusal for network in opened), None):
                raise KafkaRefuses(f"Kafka at {_servers()} cannot be used, {ADVICE}: {refusal}") from refusal
            raise KafkaUnreachable(f"Kafka at {_servers()} does not answer: {error}") from error
        raise


@contextmanager
def admin_client() -> Iterator[KafkaAdminClient]:
    """Raises KafkaUnreachable."""
    admin = connect(KafkaAdminClient, request_timeout_ms=CONNECT_TIMEOUT_MS)
    try:
        yield admin
    finally:
        admin.close()


@contextmanager
def unreachable_on_error() -> Iterator[None]:
    """Whatever the client raises in this block becomes KafkaUnreachable."""
    try:
        yield
    except KafkaError as error:
        raise KafkaUnreachable(f"Kafka at {_servers()} does not answer: {error}") from error


def _servers() -> str:
    return ",".join(settings.KAFKA_BOOTSTRAP_SERVERS)
