"""Tables of the event pipeline: outbox, dead letters, inbox, and the state of consumer groups."""

from datetime import datetime
from typing import ClassVar, NamedTuple, Self

from django.conf import settings
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Case, Exists, F, Min, OuterRef, Q, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, Length, Now
from django.utils.translation import gettext_lazy

from events.database_clock import DatabaseClock
from events.wire.messages import Message

AGE_OF_OLDEST = DatabaseClock() - Min("recorded_at")
"""Aggregate over outbox rows: the age of the oldest row as a timedelta; None without rows."""


def stored_bytes() -> Combinable:
    """Return an SQL expression for the size in bytes of the message in an outbox row or a dead letter."""
    return Coalesce(Length("key"), 0) + Coalesce(Length("value"), 0) + Length("headers")


class OldestRows(NamedTuple):
    """The result of `OutboxQuerySet.oldest`. The rows are in order, oldest first."""

    rows: list["OutboxEvent"]
    too_large: dict[int, int]
    """Sizes, in bytes, of the rows that are too large to be loaded, by primary key."""


class OutboxQuerySet(models.QuerySet["OutboxEvent"]):
    def pending(self) -> Self:
        """Return the rows that still have to reach Kafka."""
        return self.filter(published_at=None, parked_at=None)

    def sendable(self) -> Self:
        """Return the pending rows that may be sent now.

        Within a stream, number n+1 waits until n is recorded as published. Rows are selected by state, never by "id
        greater than the last one sent": a transaction with a lower id may commit later.
        """
        unpublished_predecessor = OutboxEvent.objects.filter(
            stream=OuterRef("stream"), sequence=OuterRef("sequence") - 1, published_at=None
        )
        return self.pending().filter(~Exists(unpublished_predecessor))

    @staticmethod
    def recorded_by(moment: datetime) -> Q:
        """Return the condition for rows that were recorded at or before `moment`, by the database's clock.

        Rows with a future time are included: the clock was set back after they were recorded, so their age is unknown.
        """
        return Q(recorded_at__lte=moment) | Q(recorded_at__gt=DatabaseClock())

    def oldest(self, *, max_row_bytes: int) -> "OldestRows":
        """Return the oldest of these rows for one batch.

        The batch has at most `OUTBOX_BATCH_SIZE` rows, up to and including the row that brings it to
        `OUTBOX_BATCH_BYTES`. Rows larger than `max_row_bytes` are in `too_large`, and are never loaded.
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
    """A message recorded in the same transaction as the change that it announces, with its delivery state."""

    class Path(models.TextChoices):
        FAST = "fast", gettext_lazy("Fast")
        RELAY = "relay", gettext_lazy("Relay")

    event_id = models.UUIDField(unique=True)
    event_type = models.CharField(max_length=100)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField(null=True, help_text=gettext_lazy("Leave empty to choose the partition by key."))
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.BinaryField(help_text="The module events.wire.headers defines the encoding.")
    stream = models.CharField(
        max_length=100,
        null=True,
        help_text=gettext_lazy("The messages of a stream are sent in the order of their sequence."),
    )
    sequence = models.PositiveIntegerField(null=True)
    dead_letter = models.ForeignKey(
        "DeadLetter",
        null=True,
        on_delete=models.SET_NULL,
        related_name="replays",
        db_index=False,
        help_text=gettext_lazy("This message is a replay of that dead letter."),
    )
    created_at = models.DateTimeField(
        help_text=gettext_lazy("The event carries this time, which is by the clock of the process that recorded it.")
    )
    # A default of the database, so that no INSERT has to name the column. `DatabaseClock` as the default would have
    # made the migration rewrite the table.
    recorded_at = models.DateTimeField(
        db_default=Now(),
        help_text=gettext_lazy("The age of the row counts from this time, which is by the database's clock."),
    )

    # The time of Kafka's acknowledgement, which comes after Kafka has stored the message. So admin does not call it the
    # time of publication.
    published_at = models.DateTimeField(gettext_lazy("acknowledged at"), null=True)
    published_path = models.CharField(max_length=5, choices=Path, null=True)
    published_partition = models.IntegerField(null=True)
    published_offset = models.BigIntegerField(null=True)

    parked_at = models.DateTimeField(
        null=True,
        help_text=gettext_lazy("At this time it turned out that Kafka will never accept this message."),
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
            # For counts of events per minute: a BRIN index reads few pages and costs little to maintain. It excludes
            # pending rows, because PostgreSQL would otherwise use it to find them and scan the table for each one.
            BrinIndex(
                fields=["published_at"],
                name="outbox_published_at",
                autosummarize=True,
                condition=Q(published_at__isnull=False),
            ),
            # Partial, because few rows are replays.
            models.Index(fields=["dead_letter"], name="outbox_replay", condition=Q(dead_letter__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}"

    @property
    def message(self) -> Message:
        """The message that was recorded in this row, byte for byte."""
        columns = [getattr(self, field) for field in Message._fields]
        # Django returns the values of binary fields as memoryview.
        return Message._make(bytes(column) if isinstance(column, memoryview) else column for column in columns)


OPEN_FIRST = Case(When(state="open", then=Value(0)), default=Value(1)).asc()
"""Order of dead letters with the open ones first. Admin sorts by it, and an index supports it."""


class DeadLetter(models.Model):
    """A message that a group cannot handle. It is open until the group handles a replay or a person dismisses it."""

    class State(models.TextChoices):
        OPEN = "open", gettext_lazy("Open")
        REPLAYED = "replayed", gettext_lazy("Replayed")
        DISMISSED = "dismissed", gettext_lazy("Dismissed")

    group = models.CharField(max_length=255)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    timestamp = models.BigIntegerField(help_text="This is the record's own timestamp, in milliseconds since 1970.")
    value_hash = models.BinaryField(
        max_length=32, help_text="This is the SHA-256 of the value. A null value counts as an empty one."
    )
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.BinaryField(help_text="The module events.wire.headers defines the encoding.")
    event_id = models.UUIDField(
        null=True, db_index=True, help_text=gettext_lazy("It is empty if the message names no event id.")
    )
    event_type = models.CharField(
        max_length=100, blank=True, help_text=gettext_lazy("It is empty if the message names no event type.")
    )
    subject_id = models.BigIntegerField(
        null=True,
        help_text=gettext_lazy(
            "This is what the event is about. It is empty unless the body names it with the event's id and type."
        ),
    )
    is_readable = models.BooleanField(
        default=True,
        help_text=gettext_lazy("If not, the client could not read the record, and only its position is known."),
    )
    error_class = models.CharField(max_length=255)
    error_message = models.TextField()
    stacktrace = models.TextField()
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    replay_count = models.PositiveSmallIntegerField(
        default=0, help_text=gettext_lazy("This is how often the message was sent to its topic again.")
    )
    created_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [
            ("replay_deadletter", "Can replay dead letters"),
            ("dismiss_deadletter", "Can dismiss dead letters"),
        ]
        indexes = [
            # Every admin page counts the open letters, which are few among all letters.
            models.Index(fields=["state", "id"], name="dead_letter_state"),
            # Every admin page counts the open letters of a group. The letters of other groups must not slow this down.
            models.Index(fields=["group"], name="dead_letter_open_of_group", condition=Q(state="open")),
            # Admin's list of all letters begins with the open ones.
            models.Index(OPEN_FIRST, F("id").desc(), name="dead_letter_open_first"),
        ]
        constraints = [
            # Offsets repeat when a topic is recreated, so the position alone does not identify a message.
            models.UniqueConstraint(
                fields=["group", "topic", "partition", "offset", "timestamp", "value_hash"],
                name="dead_letter_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class DeadLetterAttempt(models.Model):
    """An attempt to handle a dead letter's message: its first failure, or a replay. See `events.consuming.attempts`."""

    letter = models.ForeignKey(DeadLetter, on_delete=models.CASCADE, related_name="attempts", db_index=False)
    number = models.PositiveSmallIntegerField(help_text="It is 0 for the message itself and n for its n-th replay.")
    sent_at = models.DateTimeField(null=True, help_text="When a person replayed it. Null for the message itself.")
    failed_at = models.DateTimeField(null=True, help_text="Null until a failure is known.")
    error_class = models.CharField(max_length=255, blank=True)
    error_message = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["letter", "number"], name="dead_letter_attempt_once"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of letter {self.letter_id}"


class InboxEntry(models.Model):
    """A row for an event that a group has handled, by which the group skips repeats. See `events.inbox`."""

    pk = models.CompositePrimaryKey("group", "event_id")
    group = models.CharField(max_length=255)
    event_id = models.UUIDField()
    event_type = models.CharField(max_length=100)
    stream = models.CharField(max_length=100, help_text="The stream names what the event is about.")
    owner = models.BigIntegerField(null=True, help_text="The event concerns this user.")
    handled_at = models.DateTimeField(help_text="This time is by the database's clock.")

    class Meta:
        verbose_name_plural = "inbox entries"
        indexes = [BrinIndex(fields=["handled_at"], name="inbox_handled_at", autosummarize=True)]

    def __str__(self) -> str:
        return f"{self.group}: {self.event_type} {self.event_id}"


class ConsumerGroup(models.Model):
    """The number of consecutive dead letters of a group. All consumers of the group share it, and stop at the limit."""

    name = models.CharField(max_length=255, primary_key=True)
    consecutive_dead_letters = models.PositiveIntegerField(
        default=0, help_text="These dead letters have come since the last message that could be handled."
    )

    def __str__(self) -> str:
        return self.name


class DeathMark(models.Model):
    """A mark on the first batch of a partition that a consumer handles after its start.

    The consumer deletes the mark after the batch. If another consumer finds the mark, the consumer that left it has
    probably ended during the batch. See `events.consuming.quarantine`.
    """

    group = models.CharField(max_length=255)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    last_offset = models.BigIntegerField(help_text="This is the last offset of the batch.")
    deadly_offset = models.BigIntegerField(null=True, help_text="The message with this offset killed a process last.")
    deaths = models.PositiveSmallIntegerField(
        default=0, help_text="This is how many processes the message with the deadly offset killed."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "topic", "partition"], name="death_mark_per_partition")]

    def __str__(self) -> str:
        return f"{self.group}: {self.topic}[{self.partition}] up to {self.last_offset}"

    def covers(self, offset: int) -> bool:
        """Return whether the message with this offset in the mark's partition may have killed a consumer."""
        return offset <= self.last_offset
