"""All processes recover by themselves after Kafka was killed or stopped for a long time."""

from testkit.apache_kafka import ApacheKafka
from testkit.database import oldest_pending_seconds
from testkit.waiting import wait_until
from tests.faults.conftest import Site
from tests.faults.oracle import Oracle

OUTAGE_S = 30


def test_all_processes_reconnect_after_outages_of_kafka(site: Site, kafka: ApacheKafka, oracle: Oracle) -> None:
    """Kafka is killed, restarted, and stopped for a long time. No process ends."""
    processes = [process.process.pid for process in site]
    with oracle.shopping(site.web.url):
        oracle.wait_for_more(50)
        kafka.kill()
        kafka.start()
        oracle.wait_for_more(50)
        kafka.stop()
        wait_until(lambda: oldest_pending_seconds() > OUTAGE_S)
        kafka.start()
        oracle.wait_for_more(50)
    figures = oracle.settle_and_compare()
    print(figures)
    assert (figures.unanswered, figures.dead_letters) == (0, 0)
    assert [process.process.pid for process in site] == processes
    assert [process.process.poll() for process in site] == [None] * 3
