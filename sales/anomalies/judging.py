"""Judge the sales of each closed step of five minutes. Record each anomaly and its event in one transaction."""

import logging
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import uuid4

from django.conf import settings
from django.db import connection, transaction

from events.database_clock import database_now
from events.outbox import recording as outbox
from events.wire.headers import cloud_event_headers, pack
from events.wire.messages import Message
from events.wire.timestamps import rfc3339
from sales.anomalies.models import AnomalyWatch
from sales.anomalies.reading import read_series
from sales.anomalies.rules import CANCELLATIONS, SURGE, Finding, configured_thresholds, judge
from sales.anomalies.series import WEEK, start_of, step_of
from sales.events import SALES_ANOMALY_DETECTED, SalesAnomalyDetected, encode

logger = logging.getLogger(__name__)

CATCH_UP_STEPS = WEEK
"""Largest number of steps that are judged after an outage. It bounds the work, and older anomalies are of no use."""
RATIO_PLACES = Decimal("0.0001")

INSERT = """
    INSERT INTO sales_salesanomaly (rule, started_at, ended_at, observed, usual, detected_at, event_id)
    VALUES (%(rule)s, %(started_at)s, %(ended_at)s, %(observed)s, %(usual)s, %(detected_at)s, %(event_id)s)
    ON CONFLICT (rule, started_at) DO NOTHING
    RETURNING id
    """


class Judgement(NamedTuple):
    """The result of one turn of a watcher."""

    steps: int
    """Number of judged steps."""
    events: list[Message]
    """The event of each new anomaly. It is recorded, and can be published."""


def closed_end() -> int:
    """Return the number of the first step that is not closed. The last closed step ends where this step begins.

    A step is closed once `SALES_ANOMALY_GRACE` has passed since its end.
    """
    return step_of(database_now() - settings.SALES_ANOMALY_GRACE)


def judge_until(end: int) -> Judgement | None:
    """Judge the steps before the step number `end` that no watcher has judged. Record the anomalies that are found.

    At most the last `CATCH_UP_STEPS` steps are judged. Return None if another watcher is judging at the same time.

    The anomalies, their events and the time until which sales are judged commit together. So a process that dies loses
    no anomaly. The first call on a new database judges nothing, and only stores the time at which step `end` begins.
    """
    with transaction.atomic():
        AnomalyWatch.objects.bulk_create([AnomalyWatch(id=1, judged_until=start_of(end))], ignore_conflicts=True)
        watch = AnomalyWatch.objects.select_for_update(skip_locked=True).first()
        if watch is None:
            return None
        first = _first_unjudged(step_of(watch.judged_until), end)
        events = [*_record_anomalies(first, end)] if first < end else []
        if start_of(max(first, end)) != watch.judged_until:
            watch.judged_until = start_of(max(first, end))
            watch.save(update_fields=["judged_until"])
    return Judgement(max(0, end - first), events)


def _first_unjudged(judged_until: int, end: int) -> int:
    """Return the number of the first step to judge: the later one of `judged_until` and `end - CATCH_UP_STEPS`.

    If the step `judged_until` is after the first step that is not closed, the clock was set back. Then return the first
    step that is not closed, or `end` if `end` is earlier, so that the watchers do not wait until the clock has caught
    up. Steps that are judged again record nothing twice.
    """
    now = closed_end()
    if judged_until > now:
        logger.warning("Sales were judged until %s, in the future: the clock was set back", start_of(judged_until))
        return min(now, end)
    if end - judged_until > CATCH_UP_STEPS:
        logger.warning("Sales from %s to %s are not judged", start_of(judged_until), start_of(end - CATCH_UP_STEPS))
    return max(judged_until, end - CATCH_UP_STEPS)


def _record_anomalies(first: int, end: int) -> Iterator[Message]:
    series = read_series(judged_from=first, end=end)
    thresholds = configured_thresholds()
    moment = database_now()
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    known: set[tuple[str, int]] = set()
    for step in range(first + 1, end + 1):
        for finding in judge(series, step, thresholds):
            # The rule finds a silence again at each step until the silence ends.
            if (finding.rule, finding.start) not in known and (event := record(finding, moment)):
                yield event
            known.add((finding.rule, finding.start))


def record(finding: Finding, moment: datetime) -> Message | None:
    """Record an anomaly, detected at `moment`, and its event in the caller's transaction. Return the event's message.

    Return None if the anomaly was recorded before.
    """
    event_id = uuid4()
    row = {
        "rule": finding.rule,
        "started_at": start_of(finding.start),
        "ended_at": start_of(finding.end),
        "observed": _measure(finding, finding.observed),
        "usual": _measure(finding, finding.usual),
        "detected_at": moment,
        "event_id": event_id,
    }
    with connection.cursor() as cursor:
        cursor.execute(INSERT, row)
        inserted = cursor.fetchone()
    if inserted is None:
        return None
    (anomaly_id,) = inserted
    logger.warning("Sales from %s to %s: %s", rfc3339(start_of(finding.start)), rfc3339(start_of(finding.end)), finding)
    return outbox.record(
        Message(
            event_id=event_id,
            event_type=SALES_ANOMALY_DETECTED,
            topic=settings.SALES_EVENTS_TOPIC,
            key=str(anomaly_id).encode(),
            value=encode(
                SalesAnomalyDetected(
                    event_id=event_id,
                    event_type=SALES_ANOMALY_DETECTED,
                    timestamp=rfc3339(moment),
                    anomaly_id=anomaly_id,
                    rule=finding.rule,
                    start=rfc3339(start_of(finding.start)),
                    end=rfc3339(start_of(finding.end)),
                    observed=_measure(finding, finding.observed),
                    usual=_measure(finding, finding.usual),
                )
            ),
            headers=pack(
                cloud_event_headers(
                    event_id=event_id,
                    event_type=SALES_ANOMALY_DETECTED,
                    source="/sales",
                    time=moment,
                    subject=str(anomaly_id),
                )
            ),
            created_at=moment,
        )
    )


def _measure(finding: Finding, value: float) -> Decimal:
    """Return `value`, which is the finding's `observed` or `usual`, as `SalesAnomaly` stores it.

    The rule decides the unit: an amount for a surge, a ratio for cancellations, a number of orders for a silence.
    """
    if finding.rule == SURGE:
        return Decimal(f"{round(value)}e-2")
    if finding.rule == CANCELLATIONS:
        return Decimal(value).quantize(RATIO_PLACES)
    return Decimal(round(value))
