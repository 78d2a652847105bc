"""The event pipeline at a glance, for admin: the group on the topic, the outbox, dead letters, events per minute."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
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
from events.models import AGE_OF_OLDEST, DeadLetter, OutboxEvent
from events.timestamps import now, rfc3339
from notifications.models import Notification

MINUTES = 15
"""Of which events per minute are shown."""
COUNTED = 10_000
"""Rows up to which pending messages and dead letters are counted."""
PATIENCE = 2.0
"""Seconds that an answer waits for Kafka."""
FRESH, STALE = 1.0, 10.0
"""Seconds: what is younger is not asked for again; what is older counts for nothing."""


class Word(NamedTuple):
    """What Kafka said when it was asked last."""

    at: float
    partitions: list[PartitionLag]
    members: list[Member] | None
    is_away: bool = False


class KafkaWatch:
    """Asks Kafka in the background, one question at a time, so that nobody waits longer than `PATIENCE`."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._word: Word | None = None

    def look(self, *, patience: float = PATIENCE) -> Word:
        """Its word, or that there is none. Waits at most `patience` seconds for a fresh one."""
        if self._age() > FRESH:
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._ask, name="kafka-watch", daemon=True)
                    self._thread.start()
                asking = self._thread
            asking.join(patience)
        word = self._word
        if word is None or self._age() > STALE:
            return Word(time.monotonic(), [], None, is_away=True)
        return word

    def _age(self) -> float:
        return float("inf") if self._word is None else time.monotonic() - self._word.at

    def _ask(self) -> None:
        topic, group = settings.ORDER_EVENTS_TOPIC, settings.NOTIFICATION_CONSUMER_GROUP
        # A refused connection is known at once; the client would go on trying for seconds.
        if probe_kafka() == "down":
            self._word = Word(time.monotonic(), [], None, is_away=True)
            return
        try:
            lag = group_lag(topic=topic, group=group)
            members = group_members(topic=topic, group=group)
        except KafkaUnreachable:
            self._word = Word(time.monotonic(), [], None, is_away=True)
        else:
            self._word = Word(time.monotonic(), lag, members)


kafka = KafkaWatch()


def page(request: HttpRequest) -> HttpResponse:
    _require_permission(request)
    context = {**admin.site.each_context(request), "title": _("Event pipeline")}
    return TemplateResponse(request, "commerce/pipeline.html", context)


def state(request: HttpRequest) -> JsonResponse:
    """What the page shows, as its script asks for it."""
    _require_permission(request)
    word = kafka.look()
    return JsonResponse(
        {
            "at": rfc3339(now()),
            "kafka": "down" if word.is_away else "up",
            "topic": settings.ORDER_EVENTS_TOPIC,
            "group": settings.NOTIFICATION_CONSUMER_GROUP,
            "partitions": [partition._asdict() for partition in word.partitions],
            "members": None if word.members is None else [member._asdict() for member in word.members],
            "outbox": _outbox(),
            "deadLetters": count_open_letters(),
            "minutes": _minutes(),
        }
    )


def count_open_letters() -> int:
    """Up to `COUNTED`."""
    return DeadLetter.objects.filter(state=DeadLetter.State.OPEN)[:COUNTED].count()


def _require_permission(request: HttpRequest) -> None:
    if not request.user.has_perms(["events.view_outboxevent", "events.view_deadletter"]):
        raise PermissionDenied


def _outbox() -> dict[str, Any]:
    some = OutboxEvent.objects.pending().order_by("topic", "pk")[:COUNTED]
    found = some.aggregate(pending=Count("pk"), age=AGE_OF_OLDEST)
    return {
        "pending": found["pending"],
        "oldestSeconds": 0 if found["age"] is None else max(0.0, round(found["age"].total_seconds(), 1)),
        "parked": OutboxEvent.objects.filter(parked_at__isnull=False)[:COUNTED].count(),
    }


def _minutes() -> list[dict[str, Any]]:
    """Oldest first; the last is the current one."""
    # Publication is recorded by the database's clock.
    current = database_now().replace(second=0, microsecond=0)
    minutes = [current - timedelta(minutes=ago) for ago in reversed(range(MINUTES))]
    topic = OutboxEvent.objects.filter(topic=settings.ORDER_EVENTS_TOPIC)
    published = _per_minute(topic, "published_at", since=minutes[0])
    handled = _per_minute(Notification.objects.all(), "created_at", since=minutes[0])
    return [
        {"minute": rfc3339(minute), "published": published.get(minute, 0), "handled": handled.get(minute, 0)}
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
