"""Check whether Kafka answers, with a plain socket and short timeouts instead of a Kafka client."""

import socket
import ssl
from urllib.parse import urlsplit

from django.conf import settings

ANSWER_TIMEOUT_S = 0.5
DEFAULT_PORT = 9092
API_VERSIONS_REQUEST = bytes.fromhex("0000000a 0012 0000 00000000 ffff")
"""Kafka's ApiVersions request in version 0. Brokers answer it before authentication.

Source: https://kafka.apache.org/protocol
"""


def probe_kafka() -> str:
    """Return "up" if one of the bootstrap servers answers, else "down".

    The probe sends a request, because the kernel accepts connections even for a frozen broker. It does not use the
    Kafka client, which would start a thread and block until its timeout.
    """
    for server in settings.KAFKA_BOOTSTRAP_SERVERS:
        address = urlsplit(f"//{server}")
        try:
            if _answers(str(address.hostname), address.port or DEFAULT_PORT):
                return "up"
        except OSError:
            continue
    return "down"


def _answers(host: str, port: int) -> bool:
    with socket.create_connection((host, port), ANSWER_TIMEOUT_S) as plain:
        connection = plain
        if settings.KAFKA_SECURITY_PROTOCOL.endswith("SSL"):
            trust = ssl.create_default_context(cafile=settings.KAFKA_SSL_CAFILE)
            connection = trust.wrap_socket(plain, server_hostname=host)
        with connection:
            connection.sendall(API_VERSIONS_REQUEST)
            return bool(connection.recv(1))
