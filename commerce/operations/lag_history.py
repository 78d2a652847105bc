"""The lag of the last minutes, which the workers of the web server record in PostgreSQL while they run.

Time is divided into slots by the database's clock. Every worker tries to insert the row of the current slot. The worker
that succeeds reads Kafka and stores the lag. So each slot has at most one reading, however many workers run.
"""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.db import connection, reset_queries

from commerce.models import LagReading
from events.database_clock import database_now
from events.kafka import KafkaUnreachable
from events.kafka.lag import total_lag
from events.kafka.probe import probe_kafka
from events.observing.readings import lag_by_group
from events.subscriptions import subscriptions

logger = logging.getLogger(__name__)

SLOT_S = 5
"""Length of a slot in seconds. A slot is a piece of time for which the lag is read at most once."""
WINDOW_S = 15 * 60
"""Age in seconds after which a recorded lag is deleted."""

CLAIM_SQL = """
    WITH clock AS (SELECT extract(epoch FROM clock_timestamp()) AS seconds),
    claimed AS (
        INSERT INTO commerce_lag_reading (slot)
        SELECT to_timestamp(floor(seconds / %(slot)s) * %(slot)s) FROM clock
        ON CONFLICT DO NOTHING
        RETURNING slot
    )
    SELECT (SELECT slot FROM claimed), seconds FROM clock
"""
# After the database's clock was set back, rows of future slots remain. No worker could claim these slots again.
PRUNE_SQL = """
    DELETE FROM commerce_lag_reading
    WHERE slot < %(slot)s - %(window)s * interval '1 second' OR slot > %(slot)s
"""


class LagHistory(NamedTuple):
    """The lag of each group in the last `WINDOW_S` seconds, which are divided into slots of `SLOT_S` seconds."""

    slots: list[datetime]
    """The beginnings of the slots, oldest first. The last one is the current slot."""
    groups: dict[str, list[int | None]]
    """The lag by group, one value per slot. None means that the slot has no reading of the group.

    A group without any reading is left out.
    """


def start_recording() -> None:
    """Start a thread that records the lag until this process ends."""
    threading.Thread(target=_record_for_ever, name="lag history", daemon=True).start()


def record() -> float:
    """Record the lag of the current slot (a period of `SLOT_S` seconds), unless another process does.

    Return the seconds to the middle of the next slot, when the caller records again. If Kafka is unreachable, the slot
    stays without a reading. Raises django.db.Error if the database fails.
    """
    started_at = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(CLAIM_SQL, {"slot": SLOT_S})
        slot, seconds = cursor.fetchone()
    if slot is not None:
        _fill(slot)
    # In the middle of a slot, a thread that runs a little early or late neither misses a slot nor meets one twice.
    next_in_s = SLOT_S - float(seconds) % SLOT_S + SLOT_S / 2
    return max(0.0, next_in_s - (time.monotonic() - started_at))


def read_history() -> LagHistory:
    """Return the recorded lag of the last `WINDOW_S` seconds. This takes two small queries."""
    start = datetime.fromtimestamp(database_now().timestamp() // SLOT_S * SLOT_S - WINDOW_S, UTC)
    rows = LagReading.objects.filter(slot__gte=start, lag__isnull=False)
    found: dict[datetime, dict[str, int]] = {row.slot: row.lag or {} for row in rows}
    slots = [start + timedelta(seconds=SLOT_S * number) for number in range(WINDOW_S // SLOT_S + 1)]
    groups = sorted({group for lag in found.values() for group in lag})
    return LagHistory(slots, {group: [found.get(slot, {}).get(group) for slot in slots] for group in groups})


def _record_for_ever() -> None:
    fails = False
    while True:
        reset_queries()  # With DEBUG on, Django keeps every statement.
        try:
            pause_s = record()
            fails = False
        except Exception as error:  # noqa: BLE001 - the next slot may succeed, and nothing would start the thread again
            connection.close()
            pause_s = SLOT_S
            if not fails:
                logger.warning("The lag is not recorded: %s", str(error).strip())
            fails = True
        time.sleep(pause_s)


def _fill(slot: datetime) -> None:
    """Store the lag in the slot's row, if Kafka answers. Delete rows older than `WINDOW_S`, and rows of later slots."""
    lag = _read_lag()
    if lag is not None:
        LagReading.objects.filter(slot=slot).update(lag=lag)
    with connection.cursor() as cursor:
        cursor.execute(PRUNE_SQL, {"slot": slot, "window": WINDOW_S})


def _read_lag() -> dict[str, int] | None:
    """Return the lag of every registered group, or None while Kafka is unreachable."""
    if probe_kafka() == "down":
        return None
    try:
        groups = lag_by_group(subscriptions())
    except KafkaUnreachable:
        return None
    return {group: total_lag(partitions) for group, partitions in groups.items()}
