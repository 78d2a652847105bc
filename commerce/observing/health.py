"""Health endpoints: liveness of the process, and readiness of its database."""

from django.core.cache import cache
from django.db import Error, connection
from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware import common
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.request import Request
from rest_framework.response import Response

from commerce.observing.schema import describe_live, describe_ready
from events.kafka.probe import probe_kafka

KAFKA_STATE_TTL_S = 5


class CommonMiddleware(common.CommonMiddleware):
    """Skip the check of the Host header for health paths, because probes send the address of the container."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info.startswith("/health/") else super().process_request(request)


@describe_live
@api_view(["GET", "HEAD"])
@authentication_classes([])
@permission_classes([])
def live(request: Request) -> Response:
    """Return 200 while the process can answer."""
    return Response({"status": "live"})


@describe_ready
@api_view(["GET", "HEAD"])
@authentication_classes([])
@permission_classes([])
def ready(request: Request) -> Response:
    """Return 200 if the database answers, else 503. Kafka's state is information only: orders do not need it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        connection.close()
        return Response({"status": "unavailable", "database": "down", "kafka": _kafka()}, status=503)
    return Response({"status": "ready", "database": "up", "kafka": _kafka()})


def _kafka() -> str:
    return str(cache.get_or_set("kafka-state", probe_kafka, KAFKA_STATE_TTL_S))
