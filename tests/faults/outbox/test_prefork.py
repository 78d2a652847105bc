"""Every worker of a web server publishes events, if the workers are forks of a process that loaded the application."""

import psutil

from testkit import database
from testkit.processes import WebServer
from testkit.waiting import wait_until
from tests.faults.conftest import Site, StartWeb
from tests.faults.oracle import Oracle

WORKERS = 3


def test_every_worker_of_the_pre_fork_server_publishes(site: Site, oracle: Oracle, start_web: StartWeb) -> None:
    site.relay.freeze()
    web = start_web(WEB_CONCURRENCY=str(WORKERS))
    workers = wait_until(lambda: len(web.workers()) == WORKERS and web.workers())
    placed = 0
    # Each shopper keeps a connection, which the kernel assigns to one of the workers.
    while not all(has_clients(worker) for worker in workers):
        place_order_that_is_published_at_once(oracle, web)
        placed += 1
    assert placed >= WORKERS
    site.relay.thaw()
    assert oracle.settle_and_compare().notifications == placed


def place_order_that_is_published_at_once(oracle: Oracle, web: WebServer) -> None:
    order_id = oracle.shopper(web.url).place_order()
    assert order_id
    wait_until(lambda: database.published_paths(order_id) == ["fast"])


def has_clients(worker: psutil.Process) -> bool:
    """Return whether a client is connected to `worker`. Connections to PostgreSQL and Kafka do not count."""
    (listening,) = (one for one in worker.net_connections() if one.status == psutil.CONN_LISTEN)
    return any(
        one.laddr == listening.laddr and one.status == psutil.CONN_ESTABLISHED for one in worker.net_connections()
    )
