"""What the plumbing remembers: events on their way to Kafka, and messages that could not be handled."""

from datetime import datetime
from typing import ClassVar, NamedTuple, Self

from django.conf import settings
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Exists, F, Min, OuterRef, Q
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, Length, Now
from django.utils.translation import gettext_lazy

from events.database_clock import DatabaseClock
from events.messages import Message

AGE_OF_OLDEST = DatabaseClock() - Min("recorded_at")
"""Aggregate of outbox rows, a timedelta; None where there are no rows."""


def stored_bytes() -> Combinable:
    """How many bytes the message of a row has, told by the database without reading them."""
    return Coalesce(Length("key"), 0) + Coalesce(Length("value"), 0) + Length("headers")


class OldestRows(NamedTuple):
    rows: list["OutboxEvent"]
    too_large: dict[int, int]
    """Bytes by primary key, of rows that stand among them and are not loaded."""


class OutboxQuerySet(models.QuerySet["OutboxEvent"]):
    def pending(self) -> Self:
        """Rows that still have to reach Kafka."""
        return self.filter(published_at=None, parked_at=None)

    def sendable(self) -> Self:
        """Pending rows that may be sent now: within a stream, number n+1 waits until n is recorded as published.

        Chosen by state and never by "id greater than the last one sent": a transaction that took a lower id may
        commit later.
        """
        unpublished_predecessor = OutboxEvent.objects.filter(
            stream=OuterRef("stream"), sequence=OuterRef("sequence") - 1, published_at=None
        )
        return self.pending().filter(~Exists(unpublished_predecessor))

    @staticmethod
    def recorded_by(moment: datetime) -> Q:
        """Return the condition of rows recorded until `moment` of the database's clock.

        A row ahead of that clock counts, too: the clock was set back since, and the row's age is unknown.
        """
        return Q(recorded_at__lte=moment) | Q(recorded_at__gt=DatabaseClock())

    def oldest(self, *, max_row_bytes: int) -> "OldestRows":
        """Return the oldest rows that fit in a batch: `OUTBOX_BATCH_SIZE` rows, `OUTBOX_BATCH_BYTES` bytes.

        The database tells how large they are; what is larger than `max_row_bytes` is never loaded.
        """
        sizes = self.order_by("pk").values_list("pk", stored_bytes())[: settings.OUTBOX_BATCH_SIZE]
        found = OldestRows([], {})
        fitting: list[int] = []
        total = 0
        for pk, size in sizes:
            if size > max_row_bytes:
                found.too_large[pk] = size
                continue
            fitting.append(pk)
            total += size
            if total >= settings.OUTBOX_BATCH_BYTES:
                break
        found.rows.extend(OutboxEvent.objects.filter(pk__in=fitting).order_by("pk"))
        return found


class OutboxEvent(models.Model):
    """A message recorded in the transaction of the change it tells of, and how far it has come."""

    class Path(models.TextChoices):
        FAST = "fast", gettext_lazy("Fast")
        RELAY = "relay", gettext_lazy("Relay")

    event_id = models.UUIDField(unique=True)
    event_type = models.CharField(max_length=100)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField(null=True, help_text=gettext_lazy("Null: by key."))
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.BinaryField(help_text="See events.headers.")
    stream = models.CharField(
        max_length=100,
        null=True,
        help_text=gettext_lazy("Messages of one stream leave in the order of their sequence."),
    )
    sequence = models.PositiveIntegerField(null=True)
    dead_letter = models.ForeignKey(
        "DeadLetter",
        null=True,
        on_delete=models.SET_NULL,
        related_name="replays",
        db_index=False,
        help_text=gettext_lazy("Of which this message is a replay."),
    )
    created_at = models.DateTimeField(
        help_text=gettext_lazy("By the clock of the process that recorded it; events carry this time.")
    )
    # The database fills it in, so that no INSERT has to name it. Not `DatabaseClock`, with which adding the column
    # would have rewritten the table.
    recorded_at = models.DateTimeField(
        db_default=Now(), help_text=gettext_lazy("By the database's clock; its age counts from here.")
    )

    published_at = models.DateTimeField(null=True)
    published_path = models.CharField(max_length=5, choices=Path, null=True)
    published_partition = models.IntegerField(null=True)
    published_offset = models.BigIntegerField(null=True)

    parked_at = models.DateTimeField(
        null=True, help_text=gettext_lazy("When it turned out that this row can never be sent.")
    )
    parked_reason = models.TextField(blank=True)

    objects: ClassVar[OutboxQuerySet] = OutboxQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        permissions = [("send_again_outboxevent", "Can send outbox messages again")]
        constraints = [
            models.UniqueConstraint(fields=["stream", "sequence"], name="outbox_sequence_once_per_stream"),
            models.CheckConstraint(
                condition=Q(stream=None, sequence=None) | Q(stream__isnull=False, sequence__gte=1),
                name="outbox_stream_with_sequence",
            ),
            models.CheckConstraint(
                condition=Q(published_at=None) | Q(published_partition__gte=0, published_offset__gte=0),
                name="outbox_published_with_position",
            ),
        ]
        indexes = [
            models.Index(
                F("topic"),
                F("id"),
                name="outbox_pending",
                condition=Q(published_at=None, parked_at=None),
            ),
            models.Index(fields=["id"], name="outbox_parked", condition=Q(parked_at__isnull=False)),
            # For events per minute: a range of times costs a few pages, and keeping it next to nothing.
            # Without pending rows, or PostgreSQL looks for those here: through the whole table, once for each of them.
            BrinIndex(
                fields=["published_at"],
                name="outbox_published_at",
                autosummarize=True,
                condition=Q(published_at__isnull=False),
            ),
            # Replays are few: the many other rows pay nothing for it.
            models.Index(fields=["dead_letter"], name="outbox_replay", condition=Q(dead_letter__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}"

    @property
    def message(self) -> Message:
        """The message that was recorded in this row, byte for byte."""
        columns = [getattr(self, field) for field in Message._fields]
        # Binary fields come as memoryview.
        return Message._make(bytes(column) if isinstance(column, memoryview) else column for column in columns)


class DeadLetter(models.Model):
    """A message of a topic that can never be handled, kept until somebody replays or dismisses it."""

    class State(models.TextChoices):
        OPEN = "open", gettext_lazy("Open")
        REPLAYED = "replayed", gettext_lazy("Replayed")
        DISMISSED = "dismissed", gettext_lazy("Dismissed")

    group = models.CharField(max_length=255)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    timestamp = models.BigIntegerField(help_text="The record's own, milliseconds since 1970.")
    value_hash = models.BinaryField(max_length=32, help_text="SHA-256 of the value; of nothing for a null value.")
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.BinaryField(help_text="See events.headers.")
    event_id = models.UUIDField(null=True, db_index=True, help_text=gettext_lazy("Where the message names one."))
    event_type = models.CharField(max_length=100, blank=True, help_text=gettext_lazy("Where the message names one."))
    subject_id = models.BigIntegerField(
        null=True,
        help_text=gettext_lazy(
            "What the event is about. Null unless the body itself names it together with the event's id and type."
        ),
    )
    is_readable = models.BooleanField(
        default=True,
        help_text=gettext_lazy("Where not, the client could not read the record, and only its position is known."),
    )
    error_class = models.CharField(max_length=255)
    error_message = models.TextField()
    stacktrace = models.TextField()
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    replay_count = models.PositiveSmallIntegerField(
        default=0, help_text=gettext_lazy("How often it was sent to its topic again.")
    )
    created_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [
            ("replay_deadletter", "Can replay dead letters"),
            ("dismiss_deadletter", "Can dismiss dead letters"),
        ]
        indexes = [
            # What is open is asked for on every page of admin, and is little among what was.
            models.Index(fields=["state", "id"], name="dead_letter_state"),
            # A group's open letters are counted on every page of admin, however many another group has.
            models.Index(fields=["group"], name="dead_letter_open_of_group", condition=Q(state="open")),
        ]
        constraints = [
            # Offsets repeat when a topic is made anew, so that the position alone does not name a message.
            models.UniqueConstraint(
                fields=["group", "topic", "partition", "offset", "timestamp", "value_hash"],
                name="dead_letter_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class InboxEntry(models.Model):
    """An event that a group has handled; see `events.inbox`."""

    pk = models.CompositePrimaryKey("group", "event_id")
    group = models.CharField(max_length=255)
    event_id = models.UUIDField()
    event_type = models.CharField(max_length=100)
    stream = models.CharField(max_length=100, help_text="What the event is about.")
    owner = models.BigIntegerField(null=True, help_text="The user whom the event concerns.")
    handled_at = models.DateTimeField(help_text="By the database's clock.")

    class Meta:
        verbose_name_plural = "inbox entries"
        indexes = [BrinIndex(fields=["handled_at"], name="inbox_handled_at", autosummarize=True)]

    def __str__(self) -> str:
        return f"{self.group}: {self.event_type} {self.event_id}"


class ConsumerGroup(models.Model):
    """What the consumers of a group have to know of each other."""

    name = models.CharField(max_length=255, primary_key=True)
    consecutive_dead_letters = models.PositiveIntegerField(
        default=0, help_text="Dead letters since the last message that could be handled."
    )

    def __str__(self) -> str:
        return self.name


class DeathMark(models.Model):
    """The first batch that a consumer has in hand after its start. Where it is found later, that consumer died of it,
    or was killed with it. See `events.consuming.quarantine`.
    """

    group = models.CharField(max_length=255)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    last_offset = models.BigIntegerField(help_text="Of the batch.")
    deadly_offset = models.BigIntegerField(null=True, help_text="Of the message that killed a process last.")
    deaths = models.PositiveSmallIntegerField(default=0, help_text="How many processes that message killed.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "topic", "partition"], name="death_mark_per_partition")]

    def __str__(self) -> str:
        return f"{self.group}: {self.topic}[{self.partition}] up to {self.last_offset}"
