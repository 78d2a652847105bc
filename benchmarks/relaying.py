"""Compare the speed of the relay with that of a program that only sends the bytes of the same outbox rows."""

import json
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

from benchmarks import database
from benchmarks.comparison import Pair
from benchmarks.servers import PARTITIONS, Servers, running
from commerce.devserver import lifeline
from events.wire.headers import cloud_event_headers, pack
from events.wire.timestamps import now
from orders.events import ORDER_CREATED, encode
from testkit.factories import OrderEventFactory
from testkit.waiting import wait_until

ROUNDS = 3
ROWS = 100_000
TOPIC = "bench-relay"
BATCH_ROWS = 1_000
"""Number of rows that the relay marks as published in one statement. It repeats the setting `OUTBOX_BATCH_SIZE`."""


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    servers.broker.create_topic(TOPIC, partitions=PARTITIONS)
    for _ in range(ROUNDS):
        _fill_outbox()
        bare = _bare_sends()
        with running(servers.start("django", "relay_outbox")):
            wait_until(_is_empty, timeout=300)
        yield "relay-vs-bare-sends", Pair(_rate(), bare)
    database.empty("events_outboxevent")


def _is_empty() -> bool:
    return not database.value("SELECT EXISTS (SELECT FROM events_outboxevent WHERE published_at IS NULL)")


def _fill_outbox() -> None:
    database.empty("events_outboxevent")
    event = OrderEventFactory.build(event_id=UUID(int=1))
    headers = cloud_event_headers(
        event_id=event.event_id,
        event_type=ORDER_CREATED,
        source="/orders",
        time=now(),
        subject=str(event.order_id),
        sequence=1,
    )
    database.execute(
        """
        INSERT INTO events_outboxevent
            (event_id, event_type, topic, key, value, headers, stream, sequence, created_at, parked_reason)
        SELECT gen_random_uuid(), %(type)s, %(topic)s, convert_to(number::text, 'UTF8'), %(value)s, %(headers)s,
            'order-' || number, 1, now() - interval '1 minute', ''
        FROM generate_series(1, %(rows)s) AS number
        """,
        type=ORDER_CREATED,
        topic=TOPIC,
        value=encode(event),
        headers=pack(headers),
        rows=ROWS,
    )
    database.execute("VACUUM ANALYZE events_outboxevent")


def _bare_sends() -> float:
    """Send the messages of the outbox rows without the relay. Return the number of messages per second.

    A separate process sends them, because the relay also runs in a process of its own.
    """
    sending = lifeline.start([sys.executable, "-m", "benchmarks.peers.bare_sends"], stdout=subprocess.PIPE)
    said, _ = sending.communicate()
    if sending.returncode != 0:
        raise RuntimeError(f"The bare sends ended with {sending.returncode}, see above")
    return float(json.loads(said))


def _rate() -> float:
    """Return the number of outbox rows published per second, from the first `published_at` to the last.

    The first batch does not count, because the time at which it began is unknown.
    """
    sql = "SELECT extract(epoch FROM max(published_at) - min(published_at)) FROM events_outboxevent"
    return (ROWS - BATCH_ROWS) / float(database.value(sql))
