"""Connections that never leak, and one error for a Kafka that does not answer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.conf import settings
from kafka import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError

from events.kafka.patches.network import NetworkClient

CONNECT_TIMEOUT_MS = 5_000

ADVICE = "check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_CAFILE"

Client = TypeVar("Client")


class KafkaUnreachable(Exception):
    """Kafka did not answer. It may come back: wait, then try again."""


class KafkaRefuses(KafkaUnreachable):
    """Kafka, or our look at its certificate, said no. Waiting does not help whoever has only just been configured."""


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
