"""Is this process alive, and can it do its work?"""

import socket
import ssl
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import cache
from django.db import Error, connection
from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware import common
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.request import Request
from rest_framework.response import Response

from commerce.observing.schema import describe_live, describe_ready

KAFKA_STATE_CACHED = 5
"""Seconds."""
KAFKA_ANSWERS_WITHIN = 0.5
"""Seconds."""
ASK_FOR_VERSIONS = bytes.fromhex("0000000a 0012 0000 00000000 ffff")
"""Kafka's ApiVersions request, the oldest one: brokers answer it before they know who asks.

Source: https://kafka.apache.org/protocol
"""


class CommonMiddleware(common.CommonMiddleware):
    """Health is answered whatever the Host header says: an orchestrator's probe names the address of the container."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info.startswith("/health/") else super().process_request(request)


@describe_live
@api_view(["GET", "HEAD"])
@authentication_classes([])
@permission_classes([])
def live(request: Request) -> Response:
    """200 while the process can answer."""
    return Response({"status": "live"})


@describe_ready
@api_view(["GET", "HEAD"])
@authentication_classes([])
@permission_classes([])
def ready(request: Request) -> Response:
    """200 or 503 on the database. Kafka is named only: orders are taken without it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        connection.close()
        return Response({"status": "unavailable", "database": "down", "kafka": _kafka()}, status=503)
    return Response({"status": "ready", "database": "up", "kafka": _kafka()})


def _kafka() -> str:
    return str(cache.get_or_set("kafka-state", probe_kafka, KAFKA_STATE_CACHED))


def probe_kafka() -> str:
    """Whether one of the bootstrap servers answers; a connection is taken by the kernel of a frozen one as well."""
    for server in settings.KAFKA_BOOTSTRAP_SERVERS:
        address = urlsplit(f"//{server}")
        try:
            if _answers(str(address.hostname), address.port or 9092):
                return "up"
        except OSError:
            continue
    return "down"


def _answers(host: str, port: int) -> bool:
    with socket.create_connection((host, port), KAFKA_ANSWERS_WITHIN) as plain:
        connection = plain
        if settings.KAFKA_SECURITY_PROTOCOL.endswith("SSL"):
            trust = ssl.create_default_context(cafile=settings.KAFKA_SSL_CAFILE)
            connection = trust.wrap_socket(plain, server_hostname=host)
        with connection:
            connection.sendall(ASK_FOR_VERSIONS)
            return bool(connection.recv(1))
