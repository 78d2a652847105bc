"""Admin's page of the event pipeline: lag and members of each group, outbox, dead letters, and events per minute."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, DateTimeField, QuerySet
from django.db.models.functions import TruncMinute
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from events.database_clock import database_now
from events.kafka import KafkaUnreachable
from events.kafka.cluster import Member, group_members
from events.kafka.lag import PartitionLag, group_lag
from events.kafka.probe import probe_kafka
from events.models import DeadLetter, OutboxEvent
from events.observing.readings import Reading, read_outbox
from events.subscriptions import subscriptions
from events.wire.timestamps import now, rfc3339

WINDOW_MINUTES = 15
"""Number of minutes for which the page shows events per minute."""
COUNT_LIMIT = 10_000
"""Largest number of pending messages and dead letters that the page counts."""
FRESH_S = 1.0
"""Age in seconds up to which a reading of Kafka is shown again."""


class GroupOnTopic(NamedTuple):
    """The state of a registered group in Kafka."""

    group: str
    topic: str
    partitions: list[PartitionLag]
    members: list[Member] | None
    """None if the broker does not list them."""

    def as_json(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "topic": self.topic,
            "partitions": [partition._asdict() for partition in self.partitions],
            "members": None if self.members is None else [member._asdict() for member in self.members],
        }


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


def page(request: HttpRequest) -> HttpResponse:
    _require_permission(request)
    context = {**admin.site.each_context(request), "title": _("Event pipeline")}
    return TemplateResponse(request, "commerce/pipeline.html", context)


def state(request: HttpRequest) -> JsonResponse:
    """Return the page's figures as JSON for its script."""
    _require_permission(request)
    groups = kafka.latest(fresh_s=FRESH_S)
    return JsonResponse(
        {
            "at": rfc3339(now()),
            "kafka": "down" if groups is None else "up",
            "groups": [group.as_json() for group in groups or []],
            "outbox": _outbox(),
            "deadLetters": count_open_letters(),
            "minutes": _minutes(),
        }
    )


def count_open_letters() -> int:
    """Return the number of open dead letters of the registered groups, at most `COUNT_LIMIT`."""
    groups = [one.group for one in subscriptions()]
    return DeadLetter.objects.filter(group__in=groups, state=DeadLetter.State.OPEN)[:COUNT_LIMIT].count()


def _require_permission(request: HttpRequest) -> None:
    if not request.user.has_perms(["events.view_outboxevent", "events.view_deadletter"]):
        raise PermissionDenied


def _outbox() -> dict[str, Any]:
    outbox = read_outbox(count_up_to=COUNT_LIMIT)
    return {
        "pending": outbox.pending,
        "oldestSeconds": round(outbox.oldest_pending_seconds, 1),
        "parked": OutboxEvent.objects.filter(parked_at__isnull=False)[:COUNT_LIMIT].count(),
    }


def _minutes() -> list[dict[str, Any]]:
    """Return one entry per minute, oldest first. The last entry is the current minute.

    `published` counts the events of all topics that groups read. `handled` counts the events that each group handled.
    """
    # `published_at` comes from the database's clock.
    current = database_now().replace(second=0, microsecond=0)
    minutes = [current - timedelta(minutes=ago) for ago in reversed(range(WINDOW_MINUTES))]
    groups = subscriptions()
    read = OutboxEvent.objects.filter(topic__in={one.topic.name for one in groups})
    published = _per_minute(read, "published_at", since=minutes[0])
    handled = {one.group: _per_minute(*one.receipts(), since=minutes[0]) for one in groups}
    return [
        {
            "minute": rfc3339(minute),
            "published": published.get(minute, 0),
            "handled": {group: counts.get(minute, 0) for group, counts in handled.items()},
        }
        for minute in minutes
    ]


def _per_minute(rows: QuerySet[Any], moment: str, *, since: datetime) -> dict[datetime, int]:
    counted = (
        rows.filter(**{f"{moment}__gte": since})
        .order_by()
        .annotate(minute=TruncMinute(moment, output_field=DateTimeField(), tzinfo=UTC))
        .values("minute")
        .annotate(events=Count("pk"))
    )
    return {row["minute"]: row["events"] for row in counted}
