"""Connect clients to Kafka without leaking threads, and raise one error if Kafka does not answer."""

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
    """Kafka did not answer. The caller may try again later."""


class KafkaRefuses(KafkaUnreachable):
    """Kafka refused the connection, or its certificate is not trusted. The configuration is probably wrong."""


def connect(client: Callable[..., Client], *, network: type[NetworkClient] = NetworkClient, **config: Any) -> Client:
    """Return an instance of `client`, a class of kafka-python, with the project's settings and `config`.

    The instance sends and receives through an instance of `network`. If the constructor of `client` raises, this
    function closes the instance of `network`, whose thread would go on running.

    Raises:
        KafkaUnreachable: no broker answered within `CONNECT_TIMEOUT_MS`.
        KafkaRefuses: a broker answered and refused the connection.
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
            # With the default of 30 s the client would stay idle that long after an outage.
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
    """Open an admin client for this block. Raises KafkaUnreachable."""
    admin = connect(KafkaAdminClient, request_timeout_ms=CONNECT_TIMEOUT_MS)
    try:
        yield admin
    finally:
        admin.close()


@contextmanager
def unreachable_on_error() -> Iterator[None]:
    """Turn every KafkaError of this block into KafkaUnreachable."""
    try:
        yield
    except KafkaError as error:
        raise KafkaUnreachable(f"Kafka at {_servers()} does not answer: {error}") from error


def _servers() -> str:
    return ",".join(settings.KAFKA_BOOTSTRAP_SERVERS)
