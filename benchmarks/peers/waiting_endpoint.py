"""The product's endpoint, changed: it sends the event to Kafka and waits, instead of recording the event."""

from rest_framework.request import Request
from rest_framework.response import Response

from benchmarks.peers import without_events
from benchmarks.peers.synchronous_kafka import send_and_wait


class OrderViewSet(without_events.OrderViewSet):
    def create(self, request: Request) -> Response:
        response = super().create(request)
        send_and_wait(response.data["id"])
        return response
