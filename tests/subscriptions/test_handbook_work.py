"""The app of docs/leased-work.md, built exactly as the page says, calls the warehouse once for each paid order."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.db import connection

from conftest import Topics
from events.wire.timestamps import now
from orders.events import encode
from testkit.factories import OrderEventFactory
from testkit.kafka_client import produce
from tests.subscriptions.conftest import Handbook, Manage


@pytest.fixture
def handbook() -> Handbook:
    return Handbook(page="leased-work.md", app="warehouse")


class Warehouse(ThreadingHTTPServer):
    """A stand-in for the warehouse: an HTTP server that notes each call, and answers with `status`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Warehouse

    def do_PUT(self) -> None:
        self.server.calls.append((self.path, self.headers["Idempotency-Key"]))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Write nothing."""


@pytest.fixture
def warehouse() -> Iterator[Warehouse]:
    with Warehouse() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def states() -> dict[int, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT order_id, state FROM warehouse_call")
        return dict(cursor.fetchall())


@pytest.mark.django_db(transaction=True)
def test_work_of_the_page_is_done_once(manage: Manage, topics: Topics, warehouse: Warehouse) -> None:
    manage("makemigrations", "warehouse")
    manage("migrate", "warehouse")
    assert "warehouse_call  warehouse_call" in manage("work", "--list")
    paid = [OrderEventFactory.build(event_type="ORDER_PAID", order_id=n, timestamp=now()) for n in (1, 2)]
    for event in [*paid, paid[0]]:
        produce(topics.order_events, encode(event), partition=0)
    manage("consume", "warehouse", "--until-caught-up")
    assert states() == {1: "pending", 2: "pending"}
    assert [manage("work", "warehouse_call", "--once", WAREHOUSE_URL=warehouse.url) for _ in range(2)] == [
        "done 2\n",
        "done 0\n",
    ]
    assert sorted(path for path, _ in warehouse.calls) == ["/parcels/1", "/parcels/2"]
    assert len({key for _, key in warehouse.calls}) == 2
    assert states() == {1: "done", 2: "done"}
