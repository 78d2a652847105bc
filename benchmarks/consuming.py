"""Compare how fast consumers work off a backlog: the product, the usual design, a bare loop, and several consumers."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from itertools import count
from statistics import median
from typing import NamedTuple
from uuid import UUID

import psutil

from benchmarks import database
from benchmarks.comparison import Pair
from benchmarks.servers import PARTITIONS, Servers, running
from events.wire.headers import Header, cloud_event_headers
from events.wire.timestamps import now
from orders.events import ORDER_CREATED, OrderEvent, encode
from testkit.factories import OrderEventFactory
from testkit.kafka_client import Outgoing, produce_all
from testkit.processes import ProductProcess
from testkit.waiting import wait_until

ROWS = (
    *("consumer-vs-usual", "consumer-vs-bare-loop", "consumer-vs-limit", "consumer-with-inbox"),
    "consumer-with-emails",
)
"""Names of the rows that `measure` fills in the table of benchmark results."""
ROUNDS = 5
SMALL_BACKLOG, MIDDLE_BACKLOG, LARGE_BACKLOG = 10_000, 60_000, 300_000
SHARED_BACKLOG = 180_000
"""Number of events in a backlog for several consumers.

It is large, because the consumers first take some seconds to divide the partitions.
"""
EMBEDDED_BACKLOG = 24_000
"""Number of events in a backlog on the embedded broker. It is below the number of events that this broker keeps."""
USUAL_EVENTS = 2_000
"""Number of events after which the usual design (one transaction for each event) is stopped, because it is slow."""
PRODUCER_QUEUE_MESSAGES = 50_000
"""Number of messages that are sent together: fewer than the producer's queue can hold."""
BATCH_EVENTS = 500
"""Number of events in a batch of each measured consumer. Only `peers.usual_consumer` handles one event at a time."""

FIRST_CUSTOMER, CUSTOMERS = 1_000_000, 10_000
"""The lowest user id of the events, and the number of their users."""

_groups = count()


def next_group() -> str:
    """Return the name of a new consumer group."""
    return f"bench-{next(_groups)}"


class Result(NamedTuple):
    per_second: float
    megabytes: float
    """Memory of the largest consumer process after all events were saved, in MiB."""


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    size = MIDDLE_BACKLOG if servers.is_apache else EMBEDDED_BACKLOG
    backlog = Backlog(servers, "bench-backlog", size)
    if "consumer-with-emails" in wanted:
        add_customers()
        recent = Backlog(servers, "bench-recent", size, occurred_at=now())
    for _ in range(ROUNDS):
        if "consumer-vs-bare-loop" in wanted:
            ours, bare = backlog.consume(), backlog.consume(peer="bare_consumer")
            yield "consumer-vs-bare-loop", Pair(ours.per_second, bare.per_second)
        if "consumer-vs-limit" in wanted:
            ours, limit = backlog.consume(), backlog.consume(peer="limit_consumer")
            yield "consumer-vs-limit", Pair(ours.per_second, limit.per_second)
        if "consumer-vs-usual" in wanted:
            ours, usual = backlog.consume(), backlog.consume(peer="usual_consumer", events=USUAL_EVENTS)
            yield "consumer-vs-usual", Pair(ours.per_second, usual.per_second)
        if "consumer-with-emails" in wanted:
            without, with_emails = recent.consume(), recent.consume(emails=True)
            yield "consumer-with-emails", Pair(with_emails.per_second, without.per_second)
        if "consumer-with-inbox" in wanted:
            without, with_inbox = backlog.consume(), backlog.consume(inbox=True)
            yield "consumer-with-inbox", Pair(with_inbox.per_second, without.per_second)


def measure_growth(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    small, large = Backlog(servers, "bench-small", SMALL_BACKLOG), Backlog(servers, "bench-large", LARGE_BACKLOG)
    for _ in range(3):
        # A small backlog takes a second, so several runs make one figure. Half of them run before the large backlog
        # and half after it, because the large one takes half a minute, and the machine's speed changes meanwhile.
        small_runs = [small.consume() for _ in range(3)]
        large_run = large.consume()
        small_runs += [small.consume() for _ in range(3)]
        if "consumer-growth" in wanted:
            yield "consumer-growth", Pair(large_run.per_second, median(run.per_second for run in small_runs))
        if "consumer-memory" in wanted:
            yield "consumer-memory", Pair(large_run.megabytes, median(run.megabytes for run in small_runs))


def measure_several(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    backlog = Backlog(servers, "bench-several", SHARED_BACKLOG if servers.is_apache else EMBEDDED_BACKLOG)
    for _ in range(3):
        one = backlog.consume()
        for consumers in (2, 3):
            if f"consumers-{consumers}" in wanted:
                several = backlog.consume(consumers=consumers)
                yield f"consumers-{consumers}", Pair(several.per_second, one.per_second)


class Backlog:
    """A topic with `size` order events. For each measurement, a new group consumes it from the beginning."""

    def __init__(
        self, servers: Servers, topic: str, size: int, *, occurred_at: datetime = OrderEventFactory.timestamp
    ) -> None:
        self._servers = servers
        self.topic = topic
        self.size = size
        servers.broker.create_topic(topic, partitions=PARTITIONS)
        for start in range(1, size + 1, PRODUCER_QUEUE_MESSAGES):
            numbers = range(start, min(start + PRODUCER_QUEUE_MESSAGES, size + 1))
            produce_all(topic, (_message(number, occurred_at) for number in numbers))
        self._occurred_at = occurred_at

    def values(self) -> Iterator[str]:
        """Yield JSON arrays of strings. Together they contain the message values of all events on the topic."""
        for start in range(1, self.size + 1, PRODUCER_QUEUE_MESSAGES):
            numbers = range(start, min(start + PRODUCER_QUEUE_MESSAGES, self.size + 1))
            yield json.dumps([encode(_event(number, self._occurred_at)).decode() for number in numbers])

    def consume(
        self,
        *,
        consumers: int = 1,
        peer: str | None = None,
        inbox: bool = False,
        emails: bool = False,
        events: int | None = None,
    ) -> Result:
        """Let `consumers` members of a new group save `events` events, by default all. Return the rate and the memory.

        With `inbox`, the group claims each event in the inbox. With `emails`, it records an e-mail for each event.
        `peer` names another design, which then runs in place of the product's consumer.

        The rate follows from the times of the first and the last notification, so start-up does not count.
        """
        events = events or self.size
        database.empty("notifications_notification", "notifications_emaildelivery")
        group = next_group()
        with ExitStack() as stack:
            started = (self._start(group, peer=peer, inbox=inbox, emails=emails) for _ in range(consumers))
            processes = [stack.enter_context(running(one)) for one in started]
            wait_until(lambda: _saved(at_least=events), timeout=300)
            if emails:
                assert database.value("SELECT count(*) FROM notifications_emaildelivery") >= events
            megabytes = max(psutil.Process(one.process.pid).memory_info().rss / 2**20 for one in processes)
        return Result(_rate(batch=1 if peer == "usual_consumer" else BATCH_EVENTS), megabytes)

    def _start(self, group: str, *, peer: str | None, inbox: bool, emails: bool) -> ProductProcess:
        if peer is not None:
            return self._servers.start_peer(peer, self.topic, group)
        if inbox:
            return self._servers.start(
                *("django", "consume", group),
                DJANGO_SETTINGS_MODULE="benchmarks.peers.group_settings",
                OWN_TOPIC=self.topic,
                BENCH_GROUP=group,
                BENCH_SUBSCRIPTION="notifications with the inbox",
            )
        return self._servers.start(
            *("django", "consume_order_events", "--group", group),
            DJANGO_SETTINGS_MODULE="testkit.own_topic_settings",
            OWN_TOPIC=self.topic,
            EMAIL_URL="filemail:///nowhere" if emails else "",
            EMAIL_FROM="shop@example.com",
            SITE_URL="https://shop.example.com",
        )


def add_customers() -> None:
    """Create the customers of all events, each with an e-mail address."""
    database.execute(
        "INSERT INTO auth_user (id, username, email, password, is_superuser, first_name, last_name, is_staff,"
        " is_active, date_joined) SELECT n, 'mailed-' || n, n || '@example.com', '', false, '', '', false, true, now()"
        " FROM generate_series(%(first)s, %(first)s + %(count)s - 1) n ON CONFLICT DO NOTHING",
        first=FIRST_CUSTOMER,
        count=CUSTOMERS,
    )


def _event(number: int, occurred_at: datetime) -> OrderEvent:
    return OrderEventFactory.build(
        event_id=UUID(int=number),
        order_id=number,
        timestamp=occurred_at,
        user_id=FIRST_CUSTOMER + number % CUSTOMERS,
    )


def _message(number: int, occurred_at: datetime) -> Outgoing:
    return Outgoing(encode(_event(number, occurred_at)), key=str(number).encode(), headers=_headers(number))


def _headers(number: int) -> list[Header]:
    return cloud_event_headers(
        event_id=UUID(int=number),
        event_type=ORDER_CREATED,
        source="/orders",
        time=now(),
        subject=str(number),
        sequence=1,
    )


def _saved(*, at_least: int) -> bool:
    # Counting is slow, so look at the ids first. They are an upper bound only, because repeats use up ids.
    newest = database.value("SELECT max(id) FROM notifications_notification") or 0
    return newest >= at_least and database.value("SELECT count(*) FROM notifications_notification") >= at_least


def _rate(*, batch: int) -> float:
    """Return the notifications saved per second, without the first batch (`batch` of them), whose start is unknown."""
    sql = "SELECT count(*), extract(epoch FROM max(created_at) - min(created_at)) FROM notifications_notification"
    ((saved, seconds),) = database.rows(sql)
    return (saved - batch) / float(seconds)
