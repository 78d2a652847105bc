"""How gunicorn's workers share what comes in."""

import http.client
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest

from tests.processes import WebServer
from tests.waiting import wait_until


@pytest.fixture
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    web = WebServer(log=tmp_path_factory.mktemp("logs") / "web.log")
    _wait_for_all_workers(web)
    yield web
    web.kill()


def _wait_for_all_workers(web: WebServer) -> None:
    """The first one makes the server ready; it gets whatever comes before the next one is there."""
    connections: list[http.client.HTTPConnection] = []

    def has_asked_everybody() -> bool:
        connections.extend(kept_alive(web, 1))
        return all(held(worker) for worker in web.workers())

    wait_until(has_asked_everybody)
    for connection in connections:
        connection.close()
    wait_until(lambda: not any(held(worker) for worker in web.workers()))


def kept_alive(web: WebServer, count: int) -> list[http.client.HTTPConnection]:
    """Connections that came all at once, and then asked for something."""
    connections = [http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=5) for _ in range(count)]
    for connection in connections:
        connection.connect()
    for connection in connections:
        connection.request("GET", "/health/live")
        assert connection.getresponse().read()
    return connections


def held(worker: psutil.Process) -> int:
    return len(worker.net_connections()) - 1


def test_connections_that_come_at_once_are_spread_over_the_workers(web: WebServer) -> None:
    connections = kept_alive(web, 20)
    shares = sorted(held(worker) for worker in web.workers())
    assert sum(shares) == len(connections)
    assert shares[0] >= 8


def test_connections_that_come_again_and_again_are_spread_each_time(web: WebServer) -> None:
    for _ in range(20):
        connections = kept_alive(web, 8)
        assert min(held(worker) for worker in web.workers()) >= 2
        for connection in connections:
            connection.close()
        wait_until(lambda: not any(held(worker) for worker in web.workers()))


def test_connections_that_rest_hold_up_no_other(web: WebServer) -> None:
    resting = kept_alive(web, 8)
    started = time.monotonic()
    others = kept_alive(web, 50)
    assert time.monotonic() - started < 0.5
    assert sum(held(worker) for worker in web.workers()) == len(resting) + len(others)


def test_a_connection_that_asks_at_once_is_answered_again_and_again(web: WebServer) -> None:
    (connection,) = kept_alive(web, 1)
    for path, status in [("/health/live", 200), ("/nowhere", 404)] * 10:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.read()
        assert answer.status == status


def test_a_worker_that_hangs_holds_up_no_connection(web: WebServer) -> None:
    hanging, other = web.workers()
    hanging.suspend()
    started = time.monotonic()
    connections = kept_alive(web, 50)
    assert held(other) == len(connections)
    assert time.monotonic() - started < 0.5


def test_a_worker_in_the_place_of_a_killed_one_gets_its_share(web: WebServer) -> None:
    killed, other = web.workers()
    killed.kill()
    (new,) = wait_until(lambda: [worker for worker in web.workers() if worker not in (killed, other)])
    connections = []

    def has_one_more() -> int:
        connections.extend(kept_alive(web, 1))
        return held(new)

    wait_until(has_one_more)
    connections += kept_alive(web, 20)
    assert abs(held(new) - len(connections) / 2) <= 2
