"""The sums of sales are right after consumers and rebuilds were killed, and after events arrived more than once."""

import signal
import time
from collections.abc import Callable
from itertools import cycle, islice

import pytest
from django.conf import settings

from events.kafka import KafkaUnreachable
from events.kafka.lag import group_lag
from testkit import database
from testkit.apache_kafka import ApacheKafka
from testkit.customer import Customer
from testkit.foreign_events import foreign_events, send
from testkit.kafka_client import Outgoing, produce_all, read_topic
from testkit.processes import ProductProcess
from testkit.waiting import wait_until
from tests.faults.conftest import SHORT_SESSION, OwnTopic, Site, Start
from tests.faults.groups import shares
from tests.faults.launcher import sabotage
from tests.faults.oracle import Oracle
from tests.faults.places import OFFSETS_COMMITTED

SALES_GROUP = "sales"
# Other tests leave much poison on the topic.
CONSUME_SALES = ("django", "consume", SALES_GROUP, "--max-consecutive-dead-letters", "100000")
SALES_ADDED = "sales.subscriptions:add"
"""After this call, the sums are written, and their transaction is still open."""
STEP_BEGUN = "sales.sums.recounting:_end_of_step"
"""A rebuild counts the events in steps of many rows. It makes this call at the beginning of each step."""

DIFFERENCES = """
    WITH recorded AS (
        SELECT event_id, event_type, created_at, value FROM events_outboxevent WHERE stream ^@ 'order-'
        UNION ALL
        SELECT event_id, event_type, created_at, value FROM orders_orderhistory
    ),
    truth AS (
        SELECT date_trunc('minute', created_at) AS minute, recorded.event_type, count(*) AS number,
            sum((convert_from(value, 'UTF8')::jsonb ->> 'totalAmount')::numeric) AS amount
        FROM recorded JOIN events_inboxentry AS entry ON entry.event_id = recorded.event_id AND entry."group" = 'sales'
        GROUP BY 1, 2
    ),
    foreign_truth AS (
        SELECT date_trunc('minute', occurred_at) AS minute, event_type, count(*) AS number, sum(amount) AS amount
        FROM sales_foreignevent GROUP BY 1, 2
    ),
    expected AS (
        SELECT minute, event_type, sum(number) AS number, sum(amount) AS amount
        FROM (TABLE truth UNION ALL TABLE foreign_truth) AS every GROUP BY 1, 2
    ),
    kept AS (
        SELECT minute, event_type, sum(count) AS number, sum(amount) AS amount FROM sales_salesbucket
        WHERE generation = coalesce((SELECT live FROM sales_generations), 0) GROUP BY 1, 2
    )
    SELECT count(*) FROM expected FULL JOIN kept USING (minute, event_type)
    WHERE (expected.number, expected.amount) IS DISTINCT FROM (kept.number, kept.amount)
    """


@pytest.fixture
def consume_sales(start: Start) -> Callable[..., ProductProcess]:
    """Return a function that starts a consumer of sales."""
    return lambda **options: start(*CONSUME_SALES, **SHORT_SESSION, **options)


def lag(topic: str = settings.ORDER_EVENTS_TOPIC) -> int | None:
    """Return the number of records that the group `sales` has not committed; None if Kafka does not answer."""
    try:
        partitions = group_lag(topic=topic, group=SALES_GROUP)
    except KafkaUnreachable:
        return None
    return sum(one.end_offset if one.lag is None else one.lag for one in partitions)


def caught_up() -> bool:
    return database.pending() == 0 and lag() == 0 and database.pending() == 0


def handled() -> int:
    return int(database.value("""SELECT count(*) FROM events_inboxentry WHERE "group" = 'sales'"""))


def assert_sums_are_right(start: Start) -> None:
    """Check that the sums are right, and that the group has handled every order event of this outbox.

    The sums are compared with the events twice: by SQL, and by `verify_sales`.
    """
    # The group has just handled all events. Without new statistics, PostgreSQL expects next to none and joins in loops.
    database.rows("ANALYZE")
    assert database.value(DIFFERENCES) == 0
    verify = start("django", "verify_sales")
    assert verify.process.wait(120) == 0, verify.log.read_text()
    assert verify.says("intervals, wrong 0")
    # Every order event on the topic that has a row in this outbox was handled.
    unhandled = """
        SELECT count(*) FROM events_outboxevent AS event WHERE stream ^@ 'order-' AND NOT EXISTS (
            SELECT FROM events_inboxentry AS entry WHERE entry.event_id = event.event_id AND entry."group" = 'sales')
        """
    assert database.value(unhandled) == 0


@pytest.mark.parametrize(
    ("what", "where"),
    [
        pytest.param("kill-after", SALES_ADDED, id="before the database's commit"),
        pytest.param("kill-before", OFFSETS_COMMITTED, id="after the database's commit"),
        pytest.param("kill-after", OFFSETS_COMMITTED, id="after the offsets' commit"),
    ],
)
def test_killed_consumers_of_sales_lose_and_double_nothing(
    what: str, where: str, site: Site, oracle: Oracle, start: Start, consume_sales: Callable[..., ProductProcess]
) -> None:
    oracle.place_orders(site.web.url, 8)
    victim = consume_sales(launcher=sabotage(what, where))
    assert victim.process.wait(60) == -signal.SIGKILL
    consume_sales()
    wait_until(caught_up)
    assert_sums_are_right(start)


def test_two_consumers_of_sales_add_every_event_once(
    site: Site, oracle: Oracle, start: Start, consume_sales: Callable[..., ProductProcess]
) -> None:
    """Consumers come and go. Then each of the topic's last 300 events arrives again on every partition."""
    consumers = [consume_sales(), consume_sales()]
    wait_until(lambda: len(shares(SALES_GROUP)) == 2)
    with oracle.shopping(site.web.url):
        for abruptly in islice(cycle((True, False)), 4):
            leaving = consumers.pop(0)
            if abruptly:
                leaving.kill()
            else:
                leaving.stop()
            consumers.append(consume_sales())
            oracle.wait_for_more(30)
    seen = [one for one in read_topic("order-events") if one.header.get("ce_id")]
    produce_all(
        "order-events",
        [Outgoing(one.value, one.key, one.headers, partition) for one in seen[-300:] for partition in (0, 1, 2)],
    )
    wait_until(caught_up)
    assert_sums_are_right(start)


def test_events_of_added_partitions_are_added(
    start: Start, own_topic: OwnTopic, kafka: ApacheKafka, site: Site
) -> None:
    start(*CONSUME_SALES, **own_topic.env, **SHORT_SESSION, KAFKA_METADATA_MAX_AGE_MS="500")
    before, events = handled(), foreign_events(60)
    send(events[:30], topic=own_topic.name, partition=2)
    wait_until(lambda: handled() == before + 30)
    kafka.add_partitions(own_topic.name, total=5)
    send(events[30:45], topic=own_topic.name, partition=3)
    send(events[45:], topic=own_topic.name, partition=4)
    wait_until(lambda: handled() == before + 60)
    by_partition = "SELECT sum(count) FROM sales_salesbucket WHERE partition = %(partition)s"
    assert [database.value(by_partition, partition=partition) for partition in (3, 4)] == [15, 15]
    # The same events again, from another partition.
    send(events, topic=own_topic.name, partition=0)
    wait_until(lambda: lag(own_topic.name) == 0)
    assert handled() == before + 60
    assert database.value(DIFFERENCES) == 0


def test_rebuilds_under_load_show_no_false_figure(
    site: Site,
    oracle: Oracle,
    customers: list[Customer],
    start: Start,
    consume_sales: Callable[..., ProductProcess],
) -> None:
    """Rebuilds are killed and started again while orders come in.

    The count that a reader sees never falls, and never exceeds the number of handled events.
    """
    consume_sales()
    wait_until(caught_up)
    (staff, *_) = customers
    database.rows("UPDATE auth_user SET is_staff = true, is_superuser = true WHERE id = %(id)s", id=staff.id)
    counts: list[int] = []

    def read() -> None:
        at_least = handled_today()
        days = staff.http.get("/api/sales", params={"interval": "day"}).raise_for_status().json()
        counts.append(days[-1]["created"] + days[-1]["paid"] + days[-1]["cancelled"])
        assert at_least <= counts[-1] <= handled_today()

    with oracle.shopping(site.web.url):
        for on_call in (1, 2, None, 1, None):
            launcher = [] if on_call is None else sabotage("kill-before", STEP_BEGUN, on_call=on_call)
            rebuild = start("django", "rebuild_sales", launcher=launcher)
            deadline = time.monotonic() + 60
            while rebuild.process.poll() is None:
                assert time.monotonic() < deadline
                read()
            expected = 0 if on_call is None else -signal.SIGKILL
            assert rebuild.process.returncode == expected, rebuild.log.read_text()
            read()
    wait_until(caught_up)
    read()
    assert len(counts) > 20
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    assert_sums_are_right(start)


def handled_today() -> int:
    """Return the number of events of the current day (UTC) that the group `sales` has handled."""
    sql = """
        SELECT count(*) FROM events_inboxentry AS entry WHERE "group" = 'sales' AND (
            EXISTS (SELECT FROM events_outboxevent AS event WHERE event.event_id = entry.event_id
                AND event.created_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
            OR EXISTS (SELECT FROM sales_foreignevent AS event WHERE event.event_id = entry.event_id
                AND event.occurred_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'))
        """
    return int(database.value(sql))
