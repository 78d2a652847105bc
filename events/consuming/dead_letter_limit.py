"""The limit of consecutive dead letters of a group: if nearly every message is poison, the consumer itself is at fault.

The count is in the database, so that restarts by a supervisor do not reset it and all consumers of the group share it.
"""

from django.db import connection
from django.template.defaultfilters import pluralize

from events.models import ConsumerGroup

RESET = """
    UPDATE events_consumergroup SET consecutive_dead_letters = 0 WHERE name = %s AND consecutive_dead_letters > 0
    """
"""Statement that resets the count of a group. It is SQL, because every batch without a dead letter executes it."""


class TooManyDeadLetters(Exception):
    """The group has reached its limit of consecutive dead letters. A person has to find the cause."""

    def __init__(self, *, group: str, count: int) -> None:
        super().__init__(
            f"Stopped after {count} dead letter{pluralize(count)} in a row of group {group}: nothing it reads can be "
            "handled. Look at the last ones in the admin. To go on behind them, raise --max-consecutive-dead-letters; "
            "the first message that can be handled resets the count."
        )


def require_below_limit(*, group: str, limit: int) -> None:
    """Raise TooManyDeadLetters if `group` has `limit` consecutive dead letters or more."""
    known = ConsumerGroup.objects.filter(name=group).first()
    if known is not None and known.consecutive_dead_letters >= limit:
        raise TooManyDeadLetters(group=group, count=known.consecutive_dead_letters)


def reset_all() -> None:
    """Set every group's count of consecutive dead letters to 0. Call it only after the broker has lost all its records.

    The poison messages are then lost, too. On a broker that keeps its records, only a message that can be handled may
    reset the count.
    """
    ConsumerGroup.objects.filter(consecutive_dead_letters__gt=0).update(consecutive_dead_letters=0)


class ConsecutiveDeadLetters:
    """Counts a group's consecutive dead letters during one transaction, on top of the stored count.

    The first dead letter of the transaction locks the group's row. `save` stores the new count.
    """

    def __init__(self, *, group: str, limit: int) -> None:
        self._group = group
        self._limit = limit
        self._row: ConsumerGroup | None = None
        self._is_reset = False

    def reset(self) -> None:
        """Set the count to 0 in memory, because the caller has seen a message that can be handled."""
        self._is_reset = True

    def add(self) -> bool:
        """Count a dead letter in memory. Return whether the group's count has now reached the limit.

        Raises:
            TooManyDeadLetters: other consumers of the group had already brought the count to the limit.
        """
        if self._row is None:
            ConsumerGroup.objects.bulk_create([ConsumerGroup(name=self._group)], ignore_conflicts=True)
            self._row = ConsumerGroup.objects.select_for_update().get(name=self._group)
        if self._is_reset:
            self._row.consecutive_dead_letters = 0
            self._is_reset = False
        if self._row.consecutive_dead_letters >= self._limit:
            raise TooManyDeadLetters(group=self._group, count=self._row.consecutive_dead_letters)
        self._row.consecutive_dead_letters += 1
        return self._row.consecutive_dead_letters == self._limit

    def save(self) -> None:
        if self._row is not None:
            self._row.consecutive_dead_letters *= not self._is_reset
            self._row.save()
        elif self._is_reset:
            with connection.cursor() as cursor:
                cursor.execute(RESET, [self._group])
