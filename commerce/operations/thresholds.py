"""The thresholds of Prometheus' alerts, by which the pipeline page turns amber and red.

`deploy/prometheus/alerts.yml` repeats them, and `tests/repository/test_observability_files.py` compares the two files.
"""

from typing import Literal, NamedTuple

from events.observing.lag_report import LATE_S

Level = Literal["warning", "critical"]

EARLY_SHARE = 1 / 6
"""Share of a critical alert's threshold. The page is amber above this share, and red above the whole threshold."""
RECENT_MINUTES = 15
"""Number of minutes for which an alert about a single incident stays on, such as a message that can never be sent."""


class Alert(NamedTuple):
    """An alert of Prometheus whose condition the page shows."""

    name: str
    severity: Level
    section: str
    """Anchor of the runbook's section in docs/operations.md."""
    above: float = 0
    """Threshold: the alert's condition is true for a value above it."""

    def level(self, value: float) -> Level | None:
        """Return the colour of the page for `value`: "warning" is amber, "critical" is red, None is no colour.

        Above the threshold, the colour is the alert's severity. A critical alert is amber already above `EARLY_SHARE`
        of the threshold. Prometheus waits until the condition has lasted for some minutes. The page shows it
        at once.
        """
        if value > self.above:
            return self.severity
        is_early = self.severity == "critical" and value > self.above * EARLY_SHARE
        return "warning" if is_early else None


PIPELINE_UNKNOWN = Alert("PipelineUnknown", "critical", "kafka-is-away")
CONSUMER_GONE = Alert("ConsumerGone", "critical", "lag-grows")
LAG_GROWS = Alert("LagGrows", "critical", "lag-grows", above=LATE_S)
PARTITION_NEVER_READ = Alert("PartitionNeverRead", "warning", "lag-grows")
OLDEST_PENDING_TOO_OLD = Alert("OldestPendingTooOld", "critical", "outbox-pending-grows", above=60)
MESSAGES_PARKED = Alert("MessagesParked", "warning", "dead-letters-appear")
DEAD_LETTERS = Alert("DeadLetters", "warning", "dead-letters-appear")
EMAILS_NOT_SENT = Alert("EmailsNotSent", "warning", "e-mails-do-not-arrive", above=3600)
EMAILS_FAILING = Alert("EmailsFailing", "warning", "e-mails-do-not-arrive")
COMMANDS_NOT_DONE = Alert("CommandsNotDone", "critical", "commands-to-providers-wait", above=300)
DEADLINES_NOT_WATCHED = Alert("DeadlinesNotWatched", "critical", "checkouts-stand-still", above=60)
FULFILMENT_STUCK = Alert("FulfilmentStuck", "critical", "a-fulfilment-is-stuck")

ALERTS = (
    PIPELINE_UNKNOWN,
    CONSUMER_GONE,
    LAG_GROWS,
    PARTITION_NEVER_READ,
    OLDEST_PENDING_TOO_OLD,
    MESSAGES_PARKED,
    DEAD_LETTERS,
    EMAILS_NOT_SENT,
    EMAILS_FAILING,
    COMMANDS_NOT_DONE,
    DEADLINES_NOT_WATCHED,
    FULFILMENT_STUCK,
)
