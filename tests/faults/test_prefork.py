"""A web server that forks its workers from a process that has loaded everything."""

import psutil

from tests.faults import database
from tests.faults.conftest import Site, StartWeb
from tests.faults.oracle import Oracle
from tests.processes import is_frozen
from tests.waiting import wait_until

WORKERS = 3


def test_every_worker_of_the_pre_fork_server_publishes(site: Site, oracle: Oracle, start_web: StartWeb) -> None:
    site.relay.freeze()
    web = start_web(WEB_CONCURRENCY=str(WORKERS))
    workers = wait_until(lambda: len(web.workers()) == WORKERS and web.workers())

    def publishes(worker: psutil.Process) -> bool:
        others = [other for other in workers if other != worker]
        for other in others:
            other.suspend()
        wait_until(lambda: all(is_frozen(other) for other in others))
        order_id = oracle.shopper(web.url).place_order()
        assert order_id
        wait_until(lambda: database.published_paths(order_id) == ["fast"])
        for other in others:
            other.resume()
        return True

    assert all(publishes(worker) for worker in workers)
    site.relay.thaw()
    assert oracle.settle_and_compare().notifications == WORKERS
