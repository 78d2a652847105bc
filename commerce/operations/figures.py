"""Reads the figures of the pipeline page: groups in Kafka, outbox, dead letters, leased work, and events per minute."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Count, DateTimeField, Max, QuerySet
from django.db.models.functions import TruncMinute

from commerce.operations.thresholds import RECENT_MINUTES
from events.database_clock import database_now
from events.kafka import KafkaUnreachable
from events.kafka.cluster import Member, group_members
from events.kafka.lag import PartitionLag, group_lag, total_lag
from events.kafka.probe import probe_kafka
from events.models import DeadLetter, OutboxEvent
from events.observing.readings import Outbox, Reading, read_outbox
from events.subscriptions import subscriptions
from events.work.commands import CommandWork
from events.work.kinds import Kind, kinds
from events.work.models import Backlog
from fulfilment.models import Fulfilment
from notifications.models import EmailDelivery

WINDOW_MINUTES = 15
"""Number of minutes for which the pipeline page shows the events of each minute. The last one is the current minute."""
COUNT_LIMIT = 10_000
"""Number at which the page stops counting, for example messages, dead letters or e-mails. It then shows `10,000+`."""
FRESH_S = 1.0
"""Age in seconds up to which the page shows an earlier reading of Kafka without waiting for a new one."""


class GroupOnTopic(NamedTuple):
    """The lag and the members of a registered group, as read from Kafka."""

    group: str
    topic: str
    partitions: list[PartitionLag]
    members: list[Member] | None
    """Members of the group; None if the broker does not list them."""

    @property
    def lag(self) -> int:
        return total_lag(self.partitions)

    @property
    def seconds_behind(self) -> float:
        """Return the age in seconds of the oldest record that the group has not read; 0 if there is none.

        A partition does not count if its first unread record could not be fetched, or if the group has committed no
        offset there.
        """
        return max((one.seconds_behind or 0.0 for one in self.partitions), default=0.0)

    def as_json(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "topic": self.topic,
            "lag": self.lag,
            "partitions": [partition._asdict() for partition in self.partitions],
            "members": None if self.members is None else [member._asdict() for member in self.members],
        }


class WorkOfKind(NamedTuple):
    """The pending and failed work of one registered kind of leased work, such as the commands to payments."""

    kind: Kind[Any]
    backlog: Backlog
    failed: int

    @property
    def is_commands(self) -> bool:
        return issubclass(self.kind.model, CommandWork)


class Minute(NamedTuple):
    """Numbers of events in one minute."""

    start: datetime
    published: int
    """Number of events that Kafka acknowledged in this minute, on the topics that groups read."""
    handled: dict[str, int]
    """Number of events that each group handled in this minute, by the group's name."""


class Figures(NamedTuple):
    """All figures of the pipeline page at one moment."""

    groups: list[GroupOnTopic] | None
    """State of each registered group; None while Kafka is unreachable."""
    outbox: Outbox
    parked: int
    parked_recently: int
    """Number of messages parked in the last `RECENT_MINUTES` minutes, because Kafka will never accept them.

    It is at most `COUNT_LIMIT`.
    """
    open_letters: int
    emails: Backlog
    failed_emails: int
    failed_emails_recently: int
    """Number of e-mails that failed in the last `RECENT_MINUTES` minutes, at most `COUNT_LIMIT`."""
    work: list[WorkOfKind]
    """The pending and failed work of each registered kind, sorted by the kind's name."""
    stuck_fulfilments: int
    since_handled_s: dict[str, float]
    """Seconds since each group last handled an event, by group.

    A group that has handled none in the last `WINDOW_MINUTES` minutes is left out.
    """
    minutes: list[Minute]
    """One entry per minute, oldest first. The last entry is the current minute."""


def read_figures() -> Figures:
    """Read all figures. This waits for Kafka for a few seconds at most."""
    groups = kafka.latest(fresh_s=FRESH_S)
    # The rows' times come from the database's clock.
    now = database_now()
    recently = now - timedelta(minutes=RECENT_MINUTES)
    failed_emails = EmailDelivery.objects.failed()
    minutes, since_handled_s = _read_minutes(now)
    return Figures(
        groups=groups,
        outbox=read_outbox(count_up_to=COUNT_LIMIT),
        parked=OutboxEvent.objects.filter(parked_at__isnull=False)[:COUNT_LIMIT].count(),
        parked_recently=OutboxEvent.objects.filter(parked_at__gte=recently)[:COUNT_LIMIT].count(),
        open_letters=count_open_letters(),
        emails=EmailDelivery.objects.backlog(count_up_to=COUNT_LIMIT),
        failed_emails=failed_emails[:COUNT_LIMIT].count(),
        failed_emails_recently=failed_emails.filter(finished_at__gte=recently)[:COUNT_LIMIT].count(),
        work=[
            WorkOfKind(
                kind=one,
                backlog=one.model.objects.backlog(count_up_to=COUNT_LIMIT),
                failed=one.model.objects.failed()[:COUNT_LIMIT].count(),
            )
            for one in kinds()
        ],
        stuck_fulfilments=count_stuck_fulfilments(),
        since_handled_s=since_handled_s,
        minutes=minutes,
    )


def count_open_letters() -> int:
    """Return the number of open dead letters of the registered groups, at most `COUNT_LIMIT`."""
    groups = [one.group for one in subscriptions()]
    return DeadLetter.objects.filter(group__in=groups, state=DeadLetter.State.OPEN)[:COUNT_LIMIT].count()


def count_stuck_fulfilments() -> int:
    """Return the number of stuck fulfilments, at most `COUNT_LIMIT`."""
    return Fulfilment.objects.stuck()[:COUNT_LIMIT].count()


def _read_groups() -> list[GroupOnTopic] | None:
    """Return the state of every registered group in Kafka, or None while Kafka is unreachable."""
    # The probe fails at once on a refused connection. The client would retry for seconds.
    if probe_kafka() == "down":
        return None
    try:
        return [
            GroupOnTopic(
                group=one.group,
                topic=one.topic.name,
                partitions=group_lag(topic=one.topic.name, group=one.group),
                members=group_members(topic=one.topic.name, group=one.group),
            )
            for one in subscriptions()
        ]
    except KafkaUnreachable:
        return None


kafka = Reading("the groups", _read_groups)


def _read_minutes(now: datetime) -> tuple[list[Minute], dict[str, float]]:
    """Return the numbers of events in the last minutes, and the seconds since each group last handled an event.

    The second value has no entry for a group that has handled no event in these minutes.
    """
    current = now.replace(second=0, microsecond=0)
    starts = [current - timedelta(minutes=ago) for ago in reversed(range(WINDOW_MINUTES))]
    groups = subscriptions()
    read = OutboxEvent.objects.filter(topic__in={one.topic.name for one in groups})
    published = _per_minute(read, "published_at", since=starts[0])
    handled = {one.group: _per_minute(*one.receipts(), since=starts[0]) for one in groups}
    minutes = [
        Minute(
            start=start,
            published=_events(published, start),
            handled={group: _events(found, start) for group, found in handled.items()},
        )
        for start in starts
    ]
    newest = {group: max(newest for _, newest in found.values()) for group, found in handled.items() if found}
    return minutes, {group: (now - moment).total_seconds() for group, moment in newest.items()}


def _events(found: dict[datetime, tuple[int, datetime]], minute: datetime) -> int:
    return found[minute][0] if minute in found else 0


def _per_minute(rows: QuerySet[Any], moment: str, *, since: datetime) -> dict[datetime, tuple[int, datetime]]:
    """Return (number of rows, newest `moment`) by minute, for minutes with rows. `moment` is the name of a column."""
    counted = (
        rows.filter(**{f"{moment}__gte": since})
        .order_by()
        .annotate(minute=TruncMinute(moment, output_field=DateTimeField(), tzinfo=UTC))
        .values("minute")
        .annotate(events=Count("pk"), newest=Max(moment))
    )
    return {row["minute"]: (row["events"], row["newest"]) for row in counted}
