"""How many dead letters in a row a group may make: where nearly everything is poison, something else is wrong.

Counted in the database, so that neither a supervisor's restarts nor the number of consumers begins to count anew.
"""

from django.template.defaultfilters import pluralize

from events.models import ConsumerGroup


class TooManyDeadLetters(Exception):
    """The group is at its limit: a person has to look before it goes on."""

    def __init__(self, *, group: str, count: int) -> None:
        super().__init__(
            f"Stopped after {count} dead letter{pluralize(count)} in a row of group {group}: nothing it reads can be "
            "handled. Look at the last ones in the admin. To go on behind them, raise --max-consecutive-dead-letters; "
            "the count starts again with the first message that can be handled."
        )


def require_below_limit(*, group: str, limit: int) -> None:
    """Raises TooManyDeadLetters."""
    known = ConsumerGroup.objects.filter(name=group).first()
    if known is not None and known.consecutive_dead_letters >= limit:
        raise TooManyDeadLetters(group=group, count=known.consecutive_dead_letters)


def forget() -> None:
    """Let every group count anew, because its broker is gone with all that was poison there.

    A broker that keeps its records is no reason: there, only a message that can be handled ends a row of dead letters.
    """
    ConsumerGroup.objects.filter(consecutive_dead_letters__gt=0).update(consecutive_dead_letters=0)


class Streak:
    """A group's dead letters in a row, as they go on in one transaction. Its row is locked with the first of them."""

    def __init__(self, *, group: str, limit: int) -> None:
        self._group = group
        self._limit = limit
        self._row: ConsumerGroup | None = None
        self._broken = False

    def handled(self) -> None:
        """A message could be handled."""
        self._broken = True

    def dead_letter(self) -> bool:
        """Count one more; whether that is the last one allowed.

        Raises TooManyDeadLetters where other consumers of the group have come to the limit meanwhile.
        """
        if self._row is None:
            ConsumerGroup.objects.bulk_create([ConsumerGroup(name=self._group)], ignore_conflicts=True)
            self._row = ConsumerGroup.objects.select_for_update().get(name=self._group)
        if self._broken:
            self._row.consecutive_dead_letters = 0
            self._broken = False
        if self._row.consecutive_dead_letters >= self._limit:
            raise TooManyDeadLetters(group=self._group, count=self._row.consecutive_dead_letters)
        self._row.consecutive_dead_letters += 1
        return self._row.consecutive_dead_letters == self._limit

    def save(self) -> None:
        if self._row is not None:
            self._row.consecutive_dead_letters *= not self._broken
            self._row.save()
        elif self._broken:
            ConsumerGroup.objects.filter(name=self._group, consecutive_dead_letters__gt=0).update(
                consecutive_dead_letters=0
            )
