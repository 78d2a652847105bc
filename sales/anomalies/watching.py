"""The watcher looks for anomalies in the sales of each five-minute step.

It judges a step as soon as the step is closed and the group `sales` has handled all events from before the step's end.
A step is closed once `SALES_ANOMALY_GRACE` has passed since its end. If several watchers run, they take turns.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from django.conf import settings
from django.db import Error, connection, reset_queries
from django.template.defaultfilters import pluralize

from events.kafka import KafkaUnreachable
from events.kafka.lag import CaughtUp
from events.models import OutboxEvent
from events.outbox.publisher import publish
from sales.anomalies.judging import Judgement, closed_end, judge_until
from sales.anomalies.models import AnomalyWatch
from sales.anomalies.series import start_of, step_of
from sales.subscriptions import SALES

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
"""Pause between two attempts to judge, in seconds."""


class Watcher:
    """Judges the sales of each closed step of five minutes for anomalies, once the step is complete.

    A step is closed once `SALES_ANOMALY_GRACE` has passed since its end. It is complete when the group `sales` has
    handled all events from before its end. Such an event may still wait in the outbox or on the topic, so the watcher
    looks at both. Otherwise it would take an outage of the pipeline for a silence of the shop.
    """

    def __init__(self, *, stopping: Callable[[], bool], wait: Callable[[float], object]) -> None:
        """Create a watcher. `stopping` returns whether to end. `wait` pauses for a number of seconds."""
        self._stopping = stopping
        self._wait = wait
        self._caught_up: CaughtUp | None = None
        self._waiting_for: int | None = None
        """Number of the first step that was not closed when `_caught_up` was created; None if `_caught_up` is None.

        A step is closed once `SALES_ANOMALY_GRACE` has passed since its end. `_caught_up` returns True once the
        group has handled all events from before this step.
        """

    def run(self) -> None:
        """Judge each step of five minutes once it is closed and complete, until `stopping` returns True.

        Outages of Kafka and of the database do not end the run.
        """
        in_outage = False
        while not self._stopping():
            reset_queries()  # With DEBUG on, Django keeps every statement.
            try:
                self.judge()
                in_outage = False
            except (KafkaUnreachable, Error) as error:
                connection.close()
                self.close()
                if not in_outage:
                    logger.warning("Sales are not judged: %s", str(error).strip())
                in_outage = True
            self._wait(POLL_INTERVAL_S)

    def judge(self) -> Judgement | None:
        """Judge the steps that have closed, and publish the events of new anomalies.

        Return None if the group has not handled all events of these steps, or another watcher has its turn.

        Raises:
            KafkaUnreachable: Kafka does not answer.
            django.db.Error: the database failed.
        """
        end = closed_end()
        if self._is_judged(end):
            return Judgement(0, [])
        if not self._is_complete(end):
            return None
        judgement = judge_until(end)
        if judgement is not None:
            self.close()
            publish(judgement.events)
            if judgement.events:
                logger.warning("Found %d anomal%s", len(judgement.events), pluralize(len(judgement.events), "y,ies"))
        return judgement

    def close(self) -> None:
        if self._caught_up is not None:
            self._caught_up.close()
        self._caught_up = self._waiting_for = None

    def _is_judged(self, end: int) -> bool:
        judged_until = AnomalyWatch.objects.values_list("judged_until", flat=True).first()
        return judged_until is not None and step_of(judged_until) == end

    def _is_complete(self, end: int) -> bool:
        """Return whether the group has handled all events from before `end`.

        First the outbox must have no such event left to send. Then the group must have handled every record that is on
        the topic. In this order, an event that moves from the outbox to the topic is not overlooked.
        """
        if self._waiting_for != end:
            self.close()
            if _is_pending(start_of(end)):
                return False
            self._caught_up, self._waiting_for = CaughtUp(topic=SALES.topic.name, group=SALES.group), end
        assert self._caught_up is not None
        return self._caught_up()


def _is_pending(until: datetime) -> bool:
    """Return whether an event from before `until` still has to reach the topic.

    Parked events do not count, because Kafka will never accept them.
    """
    pending = OutboxEvent.objects.pending().filter(topic=settings.ORDER_EVENTS_TOPIC, created_at__lt=until)
    return pending.exists()
