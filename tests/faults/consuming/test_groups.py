"""Members of a consumer group that come and go, lose their partitions, or read the same event twice."""

import time
from itertools import cycle, takewhile

from testkit.kafka_client import Message, Outgoing, produce_all, read_topic
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, SHORT_SESSION, Site, Start
from tests.faults.groups import shares
from tests.faults.oracle import Oracle, lag
from tests.faults.troubled_database import NOTIFICATIONS, locked, waiting_for

CHURN_S = 20
EXTRA_CONSUMERS = 3
"""Number of consumers beside the site's own."""


def place_order(oracle: Oracle, site: Site) -> Message:
    """Place an order and return its event's message on the topic."""
    order_id = oracle.shopper(site.web.url).place_order()
    key = str(order_id).encode()
    (event,) = wait_until(lambda: [one for one in read_topic("order-events") if one.key == key])
    return event


def repeat(message: Message, *, on: list[int]) -> None:
    """Send the message again to each of these partitions."""
    copies = [Outgoing(message.value, message.key, message.headers, partition) for partition in on]
    produce_all("order-events", copies)


def test_a_repeated_event_creates_one_notification(site: Site, oracle: Oracle) -> None:
    """Copies of the event arrive in the same batch as the event and in the next batch."""
    site.consumer.stop()
    event = place_order(oracle, site)
    repeat(event, on=[event.partition] * 2)
    site.consumer.start()
    wait_until(lambda: lag() == 0)
    repeat(event, on=[event.partition] * 2)
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.repeats, figures.dead_letters) == (1, 4, 0)


def test_an_event_read_by_two_consumers_creates_one_notification(site: Site, oracle: Oracle, start: Start) -> None:
    other = start(*CONSUME)
    wait_until(lambda: len(shares()) == 2)
    with locked(NOTIFICATIONS):
        event = place_order(oracle, site)
        repeat(event, on=[0, 1, 2])
        wait_until(lambda: waiting_for(NOTIFICATIONS) == 2)
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.repeats, figures.dead_letters) == (1, 3, 0)
    assert other.stop() == 0


def test_a_consumer_that_lost_its_partitions_joins_again(site: Site, oracle: Oracle, start: Start) -> None:
    """The consumer loses its partitions because a batch takes longer than Kafka allows between two polls."""
    site.consumer.stop()
    slow = start(*CONSUME, KAFKA_MAX_POLL_INTERVAL_MS="3000", **SHORT_SESSION)
    wait_until(lambda: len(shares()) == 1)
    with locked(NOTIFICATIONS):
        oracle.place_orders(site.web.url, 8)
        wait_until(lambda: waiting_for(NOTIFICATIONS) == 1)
        wait_until(lambda: not shares())
    oracle.place_orders(site.web.url, 8)
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.dead_letters) == (16, 0)
    assert slow.says("Offsets not committed")
    assert slow.stop() == 0, slow.log.read_text()


def test_consumers_that_come_and_go_lose_and_double_nothing(site: Site, oracle: Oracle, start: Start) -> None:
    extra = [start(*CONSUME, **SHORT_SESSION) for _ in range(EXTRA_CONSUMERS)]
    with oracle.shopping(site.web.url):
        ends_at = time.monotonic() + CHURN_S
        for abruptly in takewhile(lambda _: time.monotonic() < ends_at, cycle((False, True))):
            leaving = extra.pop(0)
            if abruptly:
                leaving.kill()
            elif leaving.says("Consuming order-events"):
                assert leaving.stop() == 0, leaving.log.read_text()
            extra.append(start(*CONSUME, **SHORT_SESSION))
            time.sleep(1)
    figures = oracle.settle_and_compare()
    print(figures)
    assert (figures.unanswered, figures.dead_letters) == (0, 0)
    assert site.consumer.process.poll() is None
