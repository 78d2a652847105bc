"""Compare a worker with bare SQL statements, and claims from a large backlog of work with claims from a small one.

The worker's action does nothing, so only its claims and the recording of its outcomes are measured.
"""

import time
from collections.abc import Iterator
from statistics import median
from uuid import uuid4

from django.db import connection

from benchmarks import database
from benchmarks.comparison import Pair
from benchmarks.servers import Servers
from events.database_clock import database_now
from events.work.leases import claim
from notifications.models import EmailDelivery
from testkit.mail.work import kind, worker

ROUNDS = 5
PIECES = 20_000
BATCH = kind().batch_size
CLAIMS = 200
SMALL_BACKLOG, LARGE_BACKLOG = 1_000, 1_000_000

CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT notification_id FROM notifications_emaildelivery
        WHERE state = 'pending' AND due_at <= now() ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE notifications_emaildelivery work SET lease = %s, due_at = now() + interval '300 s', attempts = attempts + 1
    FROM due WHERE work.notification_id = due.notification_id
    RETURNING work.notification_id
    """
FINISH = """
    UPDATE notifications_emaildelivery SET state = 'done', lease = NULL, finished_at = now()
    WHERE notification_id = ANY(%s) AND lease = %s
    """


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    for _ in range(ROUNDS):
        yield "work-vs-bare-sql", Pair(_work_off(), _work_off_by_sql())


def measure_growth(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    for _ in range(3):
        small = [_claim_ms(SMALL_BACKLOG) for _ in range(3)]
        yield "work-growth", Pair(_claim_ms(LARGE_BACKLOG), median(small))


def _record(count: int) -> None:
    """Replace all rows of work by `count` pieces of work that are due."""
    database.empty("notifications_emaildelivery")
    database.execute(
        "INSERT INTO notifications_emaildelivery (notification_id, address, subject, text, due_at)"
        " SELECT n, n || '@example.com', 'Subject', repeat('text ', 20), now() - (%(count)s - n) * interval '1 ms'"
        " FROM generate_series(1, %(count)s) n",
        count=count,
    )
    database.execute("VACUUM ANALYZE notifications_emaildelivery")


def _work_off() -> float:
    """Replace all rows of work by `PIECES` due pieces, and let one worker do them. Return the pieces per second."""
    _record(PIECES)
    alone = worker()
    start = time.perf_counter()
    assert len(alone.sweep(due_until=database_now())) == PIECES
    return PIECES / (time.perf_counter() - start)


def _work_off_by_sql() -> float:
    """Replace all rows of work by `PIECES` due pieces, and do them with bare SQL. Return the pieces per second."""
    _record(PIECES)
    start = time.perf_counter()
    done = 0
    with connection.cursor() as cursor:
        while True:
            lease = uuid4()
            cursor.execute(CLAIM, [BATCH, lease])
            claimed = [pk for (pk,) in cursor]
            if not claimed:
                break
            cursor.execute(FINISH, [claimed, lease])
            done += len(claimed)
    assert done == PIECES
    return PIECES / (time.perf_counter() - start)


def _claim_ms(backlog: int) -> float:
    """Return the median time to claim one piece of work among `backlog` pieces, in milliseconds."""
    _record(backlog)
    times = []
    for _ in range(CLAIMS):
        start = time.perf_counter()
        claim(EmailDelivery, lease=uuid4(), seconds=300, limit=1, due_until=None)
        times.append((time.perf_counter() - start) * 1000)
    return median(times)
