"""Consumers killed by a message, and consumers killed by an operator."""

import random
import signal
import time
from contextlib import nullcontext
from functools import partial

from orders.events import encode
from testkit.foreign_events import all_notified_once, foreign_events, last_dead_letter_id, open_dead_letters, send
from testkit.processes import ProductProcess
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, SHORT_SESSION, Site, Start
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle
from tests.faults.places import MESSAGE_HANDLED
from tests.faults.troubled_database import NOTIFICATIONS, locked, waiting_for

MAX_DEATHS = 3
"""Largest number of consumers that one message may kill before it is dead-lettered. The child processes in which
consumers try it do not count."""
NUMBER_OF_KILLS = 15


def has_started(consumer: ProductProcess, *, times: int) -> bool:
    return consumer.log.read_text().count("Consuming order-events") == times


def test_a_message_that_kills_consumers_becomes_a_dead_letter(site: Site, oracle: Oracle, start: Start) -> None:
    """The messages before and after it are handled."""
    last = last_dead_letter_id()
    site.consumer.stop()
    before, deadly, *after = foreign_events(10)
    consumer = start(
        *CONSUME,
        launcher=sabotage("kill-before", MESSAGE_HANDLED, always=True, containing=f"order_id={deadly.order_id},"),
        **SHORT_SESSION,
    )
    send([before])
    wait_until(lambda: all_notified_once([before]))
    send([deadly, *after])
    oracle.place_orders(site.web.url, 8)

    deaths = 0
    while not open_dead_letters(after=last):
        if consumer.process.poll() is not None:
            assert consumer.process.returncode == -signal.SIGKILL, consumer.log.read_text()
            deaths += 1
            assert deaths <= MAX_DEATHS
            consumer.start()
        time.sleep(0.05)
    assert deaths >= 1
    oracle.place_orders(site.web.url, 8)
    assert oracle.settle_and_compare().notifications == 16
    assert all_notified_once(after)
    (letter,) = open_dead_letters(after=last)
    assert letter.value == encode(deadly)
    assert "signal 9" in letter.error_message
    assert consumer.stop() == 0, consumer.log.read_text()


def test_an_operator_killing_consumers_makes_no_dead_letter(site: Site, oracle: Oracle, start: Start) -> None:
    last = last_dead_letter_id()
    site.consumer.stop()
    consumer = start(*CONSUME, KAFKA_SESSION_TIMEOUT_MS="1000")
    for number in range(1, NUMBER_OF_KILLS + 1):
        hangs = number % 3 > 0
        with locked(NOTIFICATIONS) if hangs else nullcontext():
            oracle.place_orders(site.web.url, 8)
            wait_until(partial(has_started, consumer, times=number))
            if hangs:
                wait_until(lambda: waiting_for(NOTIFICATIONS))
            else:
                time.sleep(random.random())
            if number % 3 == 1:
                consumer.process.kill()  # The child, which may be trying a message, lives on.
            else:
                consumer.kill()
        consumer.process.wait()
        consumer.start()
    assert oracle.settle_and_compare().dead_letters == 0
    assert open_dead_letters(after=last) == []
