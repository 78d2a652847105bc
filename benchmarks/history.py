"""Measure the commands that walk through all events, on a large outbox and history. See docs/history.md.

    python -m benchmarks.history --events 5000000

It fills a database of its own by SQL. For each command it prints the time, the process's peak memory, and the longest
transaction and statement, which bound the time for which the command holds a lock.
"""

import argparse
import os
import sys
import time
from typing import NamedTuple

import psutil

from benchmarks import database
from benchmarks.servers import Servers, running, servers
from commerce.devserver import lifeline

CHUNK_ORDERS = 50_000
"""Largest number of orders that one statement inserts, with their events."""
EVENTS_PER_ORDER = 3
STATEMENT_CHARS = 60
PAUSE_S = 0.02
"""Seconds between two samples of the measured command: its memory, and its open transaction in PostgreSQL."""

# Orders that were placed, paid and cancelled. The older half of the events is old enough to be pruned.
FILL = """
    WITH numbered AS MATERIALIZED (
        SELECT nextval('orders_order_id_seq') AS id, %(user)s::bigint AS user_id,
               ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()] AS event_ids,
               date_trunc('milliseconds', now()) - %(days)s * interval '1 day' AS placed_at
        FROM generate_series(1, %(orders)s)
    ), placed AS (
        INSERT INTO orders_order (id, user_id, total_amount, status, created_at, last_sequence, event_ids)
        SELECT id, user_id, 200.00, 'CANCELLED', placed_at, 3, event_ids FROM numbered
    ), items AS (
        INSERT INTO orders_orderitem (order_id, product_id, quantity, price) SELECT id, 1, 2, 100.00 FROM numbered
    ), changes AS MATERIALIZED (
        SELECT id, user_id, sequence, event_type, event_ids[sequence] AS event_id,
               placed_at + sequence * interval '1 second' - interval '1 second' AS at
        FROM numbered, (VALUES (1, 'ORDER_CREATED'), (2, 'ORDER_PAID'), (3, 'ORDER_CANCELLED'))
            AS change (sequence, event_type)
    ), notified AS (
        INSERT INTO notifications_notification (user_id, order_id, event_id, type, message, created_at)
        SELECT user_id, id, event_id, event_type, '', at FROM changes
    ), claimed AS (
        INSERT INTO events_inboxentry ("group", event_id, event_type, stream, owner, handled_at)
        SELECT name, event_id, event_type, 'order-' || id, user_id, at FROM changes, unnest(%(groups)s::text[]) AS name
    )
    INSERT INTO events_outboxevent (event_id, event_type, topic, key, value, headers, stream, sequence, created_at,
        recorded_at, published_at, published_path, published_partition, published_offset, parked_reason)
    SELECT event_id, event_type, 'order-events', convert_to(id::text, 'UTF8'),
           convert_to('{"eventId":"' || event_id || '","eventType":"' || event_type || '","timestamp":"'
               || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '","orderId":' || id
               || ',"userId":' || user_id || ',"totalAmount":200.00}', 'UTF8'),
           decode(repeat('00', 300), 'hex'), 'order-' || id, sequence, at, at, at, 'fast', 0, 1000000000 + id, ''
    FROM changes
    """


class Measured(NamedTuple):
    seconds: float
    megabytes: int
    """Peak resident memory of the process, in MiB."""
    longest_transaction_s: float
    longest_statement_s: float
    longest_statement: str
    """Beginning of the SQL of the statement that ran longest."""
    said: str

    def __str__(self) -> str:
        return (
            f"{self.seconds:,.0f} s, {self.megabytes} MiB, longest transaction {self.longest_transaction_s:.2f} s, "
            f"longest statement {self.longest_statement_s:.2f} s ({self.longest_statement}): {self.said}"
        )


def fill(events: int, groups: list[str]) -> None:
    """Insert orders with `events` events in all, which are in the outbox.

    Each event has a notification, and one inbox entry for each of `groups`.
    """
    (user,) = database.rows(
        "INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, date_joined, first_name,"
        " last_name, email) VALUES ('customer', '', FALSE, FALSE, TRUE, now(), '', '', '') RETURNING id"
    )[0]
    orders = events // EVENTS_PER_ORDER
    chunk = min(CHUNK_ORDERS, max(1, orders // 2))
    for first in range(0, orders, chunk):
        days = 60 if first < orders // 2 else 1
        number = min(chunk, orders - first)
        database.execute(FILL, user=user, orders=number, days=days, groups=groups)
        print(f"\rfilled {(first + number) * EVENTS_PER_ORDER:,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    database.execute("ANALYZE")


def measure(running_servers: Servers, *command: str) -> Measured:
    """Run a `manage.py` command. Until it ends, sample its memory and its open transaction in PostgreSQL."""
    megabytes, transaction_s, statement_s, statement = 0, 0.0, 0.0, ""
    started_at = time.perf_counter()
    with running(running_servers.start("django", *command, PGAPPNAME="measured")) as process:
        member = psutil.Process(process.process.pid)
        while process.process.poll() is None:
            megabytes = max(megabytes, member.memory_info().rss // 2**20)
            for in_transaction_s, in_statement_s, query in database.rows(
                "SELECT extract(epoch FROM clock_timestamp() - xact_start)::float, CASE WHEN state = 'active' THEN"
                " extract(epoch FROM clock_timestamp() - query_start)::float ELSE 0 END, query FROM pg_stat_activity"
                " WHERE application_name = 'measured' AND xact_start IS NOT NULL"
            ):
                transaction_s = max(transaction_s, in_transaction_s)
                if in_statement_s > statement_s:
                    statement_s, statement = in_statement_s, " ".join(query.split())[:STATEMENT_CHARS]
            time.sleep(PAUSE_S)
        said = " ".join(process.log.read_text().split())
    return Measured(time.perf_counter() - started_at, megabytes, transaction_s, statement_s, statement, said)


def groups_with_inbox() -> list[str]:
    import django

    django.setup()
    from events.subscriptions import subscriptions
    from notifications.subscriptions import NOTIFICATIONS
    from orders.events import ORDER_EVENTS

    return [one.group for one in subscriptions(ORDER_EVENTS.name) if one.group != NOTIFICATIONS.group]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    events = parser.parse_args().events
    lifeline.interrupt_on_signals()
    lifeline.follow_make()
    with servers() as running_servers:
        print(f"{events:,} events, {running_servers.postgres_version}, {os.cpu_count()} cores")
        fill(events, groups_with_inbox())
        for command in (
            ("prune_events",),
            ("reconcile_events",),
            ("verify_orders",),
            ("prune_events", "--older-than", "1h"),
        ):
            print(f"{' '.join(command)}: {measure(running_servers, *command)}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
