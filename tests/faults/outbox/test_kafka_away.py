"""Kafka refuses connections, stays silent, dies or freezes: orders are accepted, and their events follow."""

from collections.abc import Callable
from statistics import median, quantiles

import psutil
import pytest

from testkit import database
from testkit.apache_kafka import ApacheKafka
from testkit.proxy import Proxy
from testkit.waiting import wait_until
from tests.faults.conftest import CUSTOMERS, Site, StartWeb
from tests.faults.oracle import Oracle

FAULTS = ("refuse", "swallow")
MAX_SLOWDOWN = 1.5
"""Largest ratio of the median time of an order without Kafka to that with Kafka. The slowest orders prove nothing: they
depend on the machine more than on Kafka."""
MAX_ANSWER_S = 2.0
"""Upper limit, in seconds, of the time that the web server takes to answer an order.

An answer that waited for Kafka could exceed the limit.
"""
MAX_GROWTH_BYTES = 30 * 1024 * 1024
"""Largest growth of a web worker's memory, in bytes."""
OUTAGE_S = 8
"""Seconds of an outage. Within this time an attempt to send fails, and Kafka removes the consumer from its group."""
SILENCE_S = 15
"""Seconds without an answer: enough for clients to give up connections, open new ones, and look for their group."""
MAX_CPU_SHARE = 0.1
"""Largest CPU time of a process, as a share of a core. Polling the database takes less, a loop without sleep more."""


def nothing_pending() -> bool:
    return database.pending() == 0


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@pytest.mark.idle
def test_without_kafka_orders_are_answered_at_once(site: Site, proxy: Proxy, oracle: Oracle) -> None:
    durations: dict[str, list[float]] = {"healthy": [], **{fault: [] for fault in FAULTS}}
    # Alternate the states, because the machine's speed changes from minute to minute.
    for fault in FAULTS:
        durations["healthy"] += oracle.place_orders(site.web.url, 300)
        wait_until(nothing_pending)
        getattr(proxy, fault)()
        while database.oldest_pending_seconds() < OUTAGE_S:
            durations[fault] += oracle.place_orders(site.web.url, 10)
        assert database.pending() == len(durations[fault])
        proxy.heal()
        wait_until(nothing_pending)
    for state, measured in durations.items():
        print(f"{state}: p50 {median(measured) * 1000:.0f} ms, p99 {quantiles(measured, n=100)[-1] * 1000:.0f} ms")
    for fault in FAULTS:
        assert median(durations[fault]) <= MAX_SLOWDOWN * median(durations["healthy"]), fault
        assert max(durations[fault]) < MAX_ANSWER_S, fault


@pytest.mark.parametrize("fault", FAULTS)
def test_without_kafka_the_memory_of_web_workers_stays_bounded(
    fault: str, site: Site, proxy: Proxy, oracle: Oracle
) -> None:
    workers = site.web.workers()
    oracle.place_orders(site.web.url, 200, at_once=CUSTOMERS)
    wait_until(nothing_pending)
    before = [worker.memory_info().rss for worker in workers]
    getattr(proxy, fault)()
    oracle.place_orders(site.web.url, 1_500, at_once=CUSTOMERS)
    assert database.pending() == 1_500
    growth = max(worker.memory_info().rss - then for worker, then in zip(workers, before, strict=True))
    print(f"grown by {growth >> 10} KiB")
    assert growth < MAX_GROWTH_BYTES
    proxy.heal()
    assert oracle.settle_and_compare().orders == 1_700


def test_waiting_for_a_silent_kafka_takes_next_to_no_cpu(site: Site, proxy: Proxy, oracle: Oracle) -> None:
    processes = {process.pid: process for part in site for process in part.family()}
    # After this outage the relay is connected, because the fast path left events to it, and the consumer has rejoined.
    proxy.refuse()
    oracle.place_orders(site.web.url, 20)
    wait_until(lambda: database.oldest_pending_seconds() > OUTAGE_S)
    proxy.heal()
    oracle.settle_and_compare()
    proxy.swallow()
    oracle.place_orders(site.web.url, 20)
    before = {pid: cpu_seconds(process) for pid, process in processes.items()}
    wait_until(lambda: database.oldest_pending_seconds() > SILENCE_S)
    for pid, process in processes.items():
        used = cpu_seconds(process) - before[pid]
        assert used < MAX_CPU_SHARE * SILENCE_S, f"{used:.1f} s of {SILENCE_S}: {process.cmdline()}"
    proxy.heal()
    assert oracle.settle_and_compare().notifications == 40


@pytest.mark.parametrize("fault", FAULTS)
def test_a_site_started_without_kafka_answers_orders_at_once(
    fault: str, proxy: Proxy, oracle: Oracle, start_web: StartWeb
) -> None:
    """The events of the orders are sent when Kafka is back."""
    getattr(proxy, fault)()
    web = start_web()
    assert max(oracle.place_orders(web.url, 20)) < 1
    assert database.pending() == 20
    proxy.heal()
    assert oracle.settle_and_compare().notifications == 20


def _refused(proxy: Proxy, kafka: ApacheKafka) -> None:
    proxy.refuse()


def _silent(proxy: Proxy, kafka: ApacheKafka) -> None:
    proxy.swallow()


def _killed(proxy: Proxy, kafka: ApacheKafka) -> None:
    kafka.kill()


def _frozen(proxy: Proxy, kafka: ApacheKafka) -> None:
    kafka.freeze()


@pytest.mark.parametrize("away", [_refused, _silent, _killed, _frozen])
def test_pending_events_are_sent_in_order_once_kafka_is_back(
    away: Callable[[Proxy, ApacheKafka], None], site: Site, proxy: Proxy, kafka: ApacheKafka, oracle: Oracle
) -> None:
    with oracle.shopping(site.web.url):
        oracle.wait_for_more(50)
        away(proxy, kafka)
        wait_until(lambda: database.oldest_pending_seconds() > OUTAGE_S)
        proxy.heal()
        if kafka.is_running():
            kafka.thaw()
        else:
            kafka.start()
        oracle.wait_for_more(50)
    figures = oracle.settle_and_compare()
    print(figures)
    assert figures.unanswered == 0


def test_broken_and_slow_connections_lose_and_double_nothing(site: Site, proxy: Proxy, oracle: Oracle) -> None:
    with oracle.shopping(site.web.url):
        for _ in range(5):
            oracle.wait_for_more(40)
            proxy.reset()
        proxy.delay(0.3)
        oracle.wait_for_more(200)
        proxy.heal()
    assert oracle.settle_and_compare().unanswered == 0


def test_an_event_sent_again_creates_one_notification(site: Site, proxy: Proxy, oracle: Oracle) -> None:
    """The event is sent again, because its acknowledgement was lost."""
    with oracle.shopping(site.web.url):
        oracle.wait_for_more(20)
        proxy.drop_answers(5)
        wait_until(lambda: proxy.dropped == 5)
        oracle.wait_for_more(20)
    assert oracle.settle_and_compare().repeats > 0
