"""Consumers that are killed or frozen between reading and committing."""

import signal

import pytest

from testkit.database import rows, value
from testkit.processes import is_frozen
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, SHORT_SESSION, Site, Start
from tests.faults.groups import shares
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle, lag
from tests.faults.places import BATCH_READ, BATCH_SAVED, OFFSETS_COMMITTED

TAKEOVER_TIMEOUT_S = 30
"""Longest time until another consumer has handled the events of a frozen one, in seconds. It includes the time until
the group removes the frozen one."""


def notifications() -> int:
    return int(value("SELECT count(*) FROM notifications_notification"))


@pytest.mark.parametrize(
    ("what", "where", "saved", "unread"),
    [
        pytest.param("kill-after", BATCH_SAVED, 0, 3, id="before the database's commit"),
        pytest.param("kill-before", OFFSETS_COMMITTED, 3, 3, id="after the database's commit"),
        pytest.param("kill-after", OFFSETS_COMMITTED, 3, 0, id="after the offsets' commit"),
    ],
)
def test_a_killed_consumer_leaves_one_notification_per_event(
    what: str, where: str, saved: int, unread: int, site: Site, oracle: Oracle, start: Start
) -> None:
    site.consumer.stop()
    shopper = oracle.shopper(site.web.url)
    order_id = shopper.place_order()
    assert order_id
    assert shopper.change(order_id, "pay")
    assert shopper.change(order_id, "cancel")
    wait_until(lambda: lag() == 3)
    before = notifications()
    victim = start(*CONSUME, launcher=sabotage(what, where), **SHORT_SESSION)
    assert victim.process.wait(30) == -signal.SIGKILL
    assert (notifications() - before, lag()) == (saved, unread)
    site.consumer.start()
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.dead_letters) == (3, 0)


@pytest.mark.parametrize(
    ("what", "where"),
    [
        pytest.param("freeze-before", BATCH_READ, id="before its transaction"),
        pytest.param("freeze-after", BATCH_SAVED, id="inside its transaction"),
        pytest.param("freeze-before", OFFSETS_COMMITTED, id="after its transaction"),
    ],
)
def test_another_consumer_takes_over_from_a_frozen_one(
    what: str, where: str, site: Site, oracle: Oracle, start: Start
) -> None:
    """The frozen consumer rejoins the group when it continues, and no event gets a second notification."""
    site.consumer.stop()
    oracle.place_orders(site.web.url, 8)
    frozen = start(*CONSUME, launcher=sabotage(what, where), **SHORT_SESSION)
    wait_until(lambda: is_frozen(frozen.family()[0]))
    site.consumer.start()
    wait_until(lambda: lag() == 0, timeout=TAKEOVER_TIMEOUT_S)
    taken_over = rows("SELECT max(id), count(*) FROM notifications_notification")

    frozen.thaw()
    wait_until(lambda: len(shares()) == 2)
    assert rows("SELECT max(id), count(*) FROM notifications_notification") == taken_over
    oracle.place_orders(site.web.url, 8)
    figures = oracle.settle_and_compare()
    assert (figures.notifications, figures.dead_letters) == (16, 0)
    assert frozen.stop() == 0, frozen.log.read_text()
