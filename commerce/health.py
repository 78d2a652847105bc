"""Is this process alive, and can it do its work?"""

import socket

from django.conf import settings
from django.core.cache import cache
from django.db import Error, connection
from django.http import HttpRequest, JsonResponse

KAFKA_STATE_CACHED = 5
"""Seconds."""
KAFKA_ANSWERS_WITHIN = 0.5
"""Seconds."""


def live(request: HttpRequest) -> JsonResponse:
    """200 while the process can answer."""
    return JsonResponse({"status": "live"})


def ready(request: HttpRequest) -> JsonResponse:
    """200 or 503 on the database. Kafka is named only: orders are taken without it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        connection.close()
        return JsonResponse({"status": "unavailable", "database": "down", "kafka": _kafka()}, status=503)
    return JsonResponse({"status": "ready", "database": "up", "kafka": _kafka()})


def _kafka() -> str:
    return str(cache.get_or_set("kafka-state", _probe_kafka, KAFKA_STATE_CACHED))


def _probe_kafka() -> str:
    """Whether one of the bootstrap servers accepts a connection."""
    for server in settings.KAFKA_BOOTSTRAP_SERVERS:
        host, _, port = server.partition(":")
        try:
            socket.create_connection((host, int(port or 9092)), timeout=KAFKA_ANSWERS_WITHIN).close()
        except OSError:
            continue
        return "up"
    return "down"
